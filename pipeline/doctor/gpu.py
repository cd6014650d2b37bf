"""Graphics processors, as the driver lists them, and whether the installed torch can use them."""

import importlib.util
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from pipeline.doctor.finding import Finding

CONCERN = "GPU"
SECONDS = 5.0  # a driver that hangs must not hang this
QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader"]


def gpu() -> Iterable[Finding]:
    """A row for each GPU, and one where torch has no use of them."""
    cards, problem = listed()
    built = torch_cuda()
    if not cards:
        yield Finding(CONCERN, "NVIDIA", "warning" if problem else "note", problem or "none here")
    for i, (name, total, free, driver) in enumerate(cards):
        yield Finding(CONCERN, f"cuda:{i}", "ok", f"{name}, {free} free of {total}, driver {driver}")
    if cards and built is None:
        fix = "Install torch from an index with CUDA builds, or set `device: cpu`"
        yield Finding(CONCERN, "torch", "warning", "the installed torch is built without CUDA", fix)
    elif built:
        yield Finding(CONCERN, "torch", "ok", f"built for CUDA {built}")


def usable() -> bool:
    """Whether there is a GPU, and a torch that can use it."""
    return bool(listed()[0]) and torch_cuda() is not None


def listed() -> tuple[list[tuple[str, ...]], str]:
    """(name, memory, free memory, driver) of each GPU, and what is wrong where the driver does not answer."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError:
        return [], ""
    except (subprocess.TimeoutExpired, OSError) as error:
        return [], f"nvidia-smi does not answer: {error}"
    if done.returncode != 0:
        return [], f"nvidia-smi: {(done.stdout or done.stderr).strip().partition(chr(10))[0]}"
    rows = (tuple(cell.strip() for cell in line.split(",")) for line in done.stdout.splitlines())
    return [row for row in rows if len(row) == 4], ""


def torch_cuda() -> str | None:
    """The CUDA version that the installed torch is built for, read from its version.py: importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    path = Path(spec.origin).with_name("version.py")
    match = re.search(r"^cuda\b[^=\n]*= *['\"]([\d.]+)['\"]", path.read_text(), re.MULTILINE) if path.exists() else None
    return match[1] if match else None
