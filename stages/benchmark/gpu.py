"""NVIDIA's GPUs: whether there is one."""

import shutil
import subprocess

TOOL = "nvidia-smi"
SECONDS = 30


def no_gpu() -> str | None:
    """Why there is none that the driver's tool lists; None where there is one."""
    if shutil.which(TOOL) is None:
        return f"there is no GPU of NVIDIA's here, or no driver: {TOOL} is not found"
    try:
        listed = subprocess.run([TOOL, "-L"], capture_output=True, text=True, check=False, timeout=SECONDS)
    except (subprocess.TimeoutExpired, OSError) as error:
        return f"{TOOL} does not list GPUs: {error}"
    if listed.returncode or "GPU " not in listed.stdout:
        lines = (listed.stdout + listed.stderr).strip().splitlines() or ["it lists none"]
        return f"there is no GPU of NVIDIA's that can be used here: {lines[0]}"
    return None
