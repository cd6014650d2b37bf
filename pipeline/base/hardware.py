"""Where a run took place: what its figures depend on."""

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from pydantic import JsonValue

LIBRARIES = (
    "shrinkline",
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "torch-pruning",
    "accelerate",
    "transformers",
    "tokenizers",
    "datasets",
    "optimum",
    "optimum-onnx",
    "sacrebleu",
    "scipy",
    "mlflow",
    "numpy",
)


def host() -> str:
    """What speed and the last bits of sums depend on: the processor, its instructions, the system."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    text = "\n".join([*named, platform.machine(), platform.system(), str(os.cpu_count())])
    return hashlib.sha256(text.encode()).hexdigest()


def describe(folder: Path) -> dict[str, JsonValue]:
    """Host, processor, versions, and the git commit of the folder with the pipeline file."""
    import torch

    versions: dict[str, JsonValue] = {name: metadata.version(name) for name in LIBRARIES}
    return {
        "host": host(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_flags": _flags(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions,
        **_git(folder),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def _flags() -> list[JsonValue]:
    """The instructions that decide how fast integers and half precision are."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.exists() else set()
    return [f for f in sorted(words) if f.startswith(("avx", "amx", "fma", "f16c", "asimd", "sve", "i8mm", "bf16"))]


def _git(folder: Path) -> dict[str, JsonValue]:
    """Commit and dirtiness; null where the folder is in no repository or there is no git."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit, status = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit, "git_dirty": None if status is None else bool(status)}
