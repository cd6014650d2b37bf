"""The machine: its processor and what that can do, the versions installed, the commit that is checked out."""

import hashlib
import os
import platform
import re
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal

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

DECISIVE = re.compile("avx|amx|fma|f16c|asimd|sve|i8mm|bf16")
"""The flags that decide how fast integers and half precision are."""

CPU_INFO = Path("/proc/cpuinfo")
VNNI = {"avx512_vnni", "avx_vnni"}
"""The names that Linux has for it."""

Isa = Literal["avx2", "avx512", "vnni", "arm64"]
"""Instruction sets of CPUs by how they add products of integers: x86 without VNNI, x86 with it, and Arm."""
SATURATING = ("avx2", "avx512")


def lines_of(path: Path) -> list[str]:
    """The lines of a file that the kernel may have; none where it has not."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def cpu_name() -> str:
    """The processor's model, or at least its kind."""
    names = [line.partition(":")[2].strip() for line in lines_of(CPU_INFO) if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """The processor's instruction sets, by the names that Linux has for them, among other words; empty elsewhere."""
    return set(" ".join(lines_of(CPU_INFO)).split())


def saturates(flags: set[str]) -> bool:
    """Whether `cpu_flags` are of an x86 CPU without VNNI, which adds products of uint8 and int8 in 16 bits."""
    return "avx2" in flags and not flags & VNNI


def saturates_on(isa: Isa | None) -> bool:
    """The same of CPUs of a kind; of this one where none is named."""
    return isa in SATURATING if isa else saturates(cpu_flags())


def saturation(isa: Isa | None, fix: str) -> list[str]:
    """A warning of what is quantized for CPUs of a kind, or for this one, where its sums saturate there.

    Args:
        isa: the kind; None for this CPU.
        fix: what avoids it, as a clause.
    """
    if not saturates_on(isa):
        return []
    cpu, there = (f"{isa}, the target, is x86 without", "there") if isa else ("this CPU has no", "here")
    lost = f"its sums of 8-bit products saturate, which costs accuracy {there}, not on newer CPUs"
    return [f"{cpu} VNNI: {lost}; {fix}"]


def cores() -> int:
    """Cores that this process may be put on; all of the machine where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host() -> str:
    """What speed and the last bits of sums depend on: the processor, its instructions, the system."""
    lines = lines_of(CPU_INFO)
    facts = sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    text = "\n".join([*facts, platform.machine(), platform.system(), str(os.cpu_count())])
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def version(library: str) -> str | None:
    """Of an installed library, read once, for the one that is loaded stays; None where it is not installed."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def describe(folder: Path) -> dict[str, JsonValue]:
    """Host, processor, versions, and the git commit of the folder with the pipeline file."""
    import torch

    versions: dict[str, JsonValue] = {name: version(name) for name in LIBRARIES}
    return {
        "host": host(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": cpu_name(),
        "cpu_flags": [*filter(DECISIVE.match, sorted(cpu_flags()))],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions,
        **_git(folder),
    }


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
