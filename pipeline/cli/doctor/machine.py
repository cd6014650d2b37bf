"""The machine: its processor and how many threads may run, its GPUs, and room on disks and in memory."""

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.base.formatting import bytes_text
from pipeline.base.hardware import VNNI, cores, cpu_flags, cpu_name, lines_of, saturates
from pipeline.cli.doctor.finding import Finding

PROCESSOR, GPU, ROOM = "processor", "GPU", "room"

INSTRUCTIONS = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "VNNI": VNNI,
    "AVX-512 bf16": {"avx512_bf16"},
    "AMX int8": {"amx_int8"},
    "AMX bf16": {"amx_bf16"},
    "dot products": {"asimddp"},
    "i8mm": {"i8mm"},
    "SVE": {"sve"},
}
"""What matters to compressed models, by the names that Linux has for it; the last three are Arm's."""

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader"]
SECONDS = 5.0  # a driver that hangs must not hang this
LITTLE_DISK, LITTLE_MEMORY = 2e9, 2e9  # bytes; a run with torch, its store and an export takes about so much


def processor() -> Iterable[Finding]:
    """The model with its instructions, and the threads."""
    yield Finding(PROCESSOR, "model", "ok", cpu_name())
    if flags := cpu_flags():
        yield instructions(flags)
    else:
        yield Finding(PROCESSOR, "instructions", "note", f"{platform.system()} does not list them in /proc/cpuinfo")
    yield threads(cores(), limit("cpu"), os.environ.get("OMP_NUM_THREADS"))


def instructions(flags: set[str]) -> Finding:
    """Those that matter; a warning where sums of int8 products saturate."""
    names = [name for name, any_of in INSTRUCTIONS.items() if flags & any_of]
    text = ", ".join(names) or "none that matters"
    if saturates(flags):
        fix = "Set `reduce_range: true` in quantizing stages; int8 gains less speed here"
        return Finding(PROCESSOR, "instructions", "warning", f"{text}; no VNNI: sums of int8 products saturate", fix)
    return Finding(PROCESSOR, "instructions", "ok", text)


def threads(cores: int, quota: float | None, omp: str | None) -> Finding:
    """How many threads can run.

    Args:
        cores: that this process may be put on.
        quota: cores' worth of time that a container allows, None for all.
        omp: OMP_NUM_THREADS.
    """
    text = f"{cores} core{'s' * (cores != 1)}"
    text += f", limited to {quota:g} by the container" if quota is not None else ""
    text += f", OMP_NUM_THREADS={omp}" if omp else ""
    if quota is not None and quota < cores and not omp:
        fix = f"Set OMP_NUM_THREADS={max(int(quota), 1)}: threads beyond the limit wait for each other"
        return Finding(PROCESSOR, "threads", "warning", text, fix)
    return Finding(PROCESSOR, "threads", "ok", text)


def limit(kind: str, proc: Path = PROC, root: Path = CGROUPS) -> float | None:
    """The tightest limit that control groups put on this process: cores for "cpu", bytes for "memory"; None for none.

    Args:
        kind: "cpu" or "memory".
        proc: where the kernel says of which groups the process is.
        root: where the groups are, in version 2 or 1.
    """
    limits = []
    for line in lines_of(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        base = root if not controllers else root / kind if kind in controllers.split(",") else None
        if base is None:
            continue
        parts = [part for part in path.split("/") if part]
        limits += [_limit(base.joinpath(*parts[:depth]), kind) for depth in range(len(parts) + 1)]
    return min((value for value in limits if value is not None), default=None)


def _limit(group: Path, kind: str) -> float | None:
    """What one group says, in the files of either version."""
    if kind == "memory":
        value = _first(group / "memory.max") or _first(group / "memory.limit_in_bytes")
        most = float(value[0]) if value and value[0].isdigit() else None
        return most if most is not None and most < 2**60 else None  # version 1 has a huge number for none
    quota = _first(group / "cpu.max")
    if not quota:
        quota = [*_first(group / "cpu.cfs_quota_us"), *_first(group / "cpu.cfs_period_us")]
    return int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0].isdigit() else None


def _first(path: Path) -> list[str]:
    return " ".join(lines_of(path)[:1]).split()


def gpu() -> Iterable[Finding]:
    """A row for each GPU, and one where torch has no use of them."""
    cards, problem = listed()
    cuda_version = torch_cuda()
    if not cards:
        yield Finding(GPU, "NVIDIA", "warning" if problem else "note", problem or "none here")
    for i, (name, total, free, driver) in enumerate(cards):
        yield Finding(GPU, f"cuda:{i}", "ok", f"{name}, {free} free of {total}, driver {driver}")
    if cards and cuda_version is None:
        fix = "Install torch from an index with CUDA builds, or set `device: cpu`"
        yield Finding(GPU, "torch", "warning", "the installed torch is built without CUDA", fix)
    elif cuda_version:
        yield Finding(GPU, "torch", "ok", f"built for CUDA {cuda_version}")


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


def room(runs: Path) -> Iterable[Finding]:
    """The disk of the runs, that of temporary files, and memory."""
    yield disk("disk of runs", runs)
    yield disk("temporary files", Path(tempfile.gettempdir()))
    yield memory(free_memory(PROC / "meminfo"), limit("memory"))


def disk(name: str, folder: Path) -> Finding:
    """How much is free where a folder is or will be, and whether it can be written."""
    place = next((path for path in (folder.resolve(), *folder.resolve().parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        return Finding(ROOM, name, "missing", f"{place} cannot be written", "Give another folder with --runs")
    if free < LITTLE_DISK:
        return Finding(ROOM, name, "warning", f"{bytes_text(free)} free at {place}", "shrink store gc")
    return Finding(ROOM, name, "ok", f"{bytes_text(free)} free at {place}")


def memory(free: float | None, most: float | None) -> Finding:
    """What a process may take.

    Args:
        free: bytes of the machine, None where it does not say.
        most: bytes that a container allows, None for all.
    """
    if free is None:
        return Finding(ROOM, "memory", "note", "this system does not say how much is free")
    least = min(free, most) if most is not None else free
    text = f"{bytes_text(free)} free"
    text += f", limited to {bytes_text(most)} by the container" if most is not None else ""
    if least < LITTLE_MEMORY:
        return Finding(ROOM, "memory", "warning", text, "Lower batch_size, or end other programs")
    return Finding(ROOM, "memory", "ok", text)


def free_memory(meminfo: Path) -> float | None:
    """Bytes that can be taken without swapping."""
    kilobytes = [line.split()[1] for line in lines_of(meminfo) if line.startswith("MemAvailable:")]
    return int(kilobytes[0]) * 1024.0 if kilobytes else None
