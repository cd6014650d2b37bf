"""The processor: which instructions int8 and half precision have, and how many threads may run."""

import os
import platform
from collections.abc import Iterable
from pathlib import Path

from pipeline.doctor.finding import Finding

CONCERN = "processor"

INSTRUCTIONS = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "AVX-512 bf16": ("avx512_bf16",),
    "AMX int8": ("amx_int8",),
    "AMX bf16": ("amx_bf16",),
    "dot products": ("asimddp",),
    "i8mm": ("i8mm",),
    "SVE": ("sve",),
}
"""What matters to compressed models, by the names that Linux has for it; the last three are Arm's."""

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def processor() -> Iterable[Finding]:
    """The model with its instructions, and the threads."""
    lines = _lines(PROC / "cpuinfo")
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = set(" ".join(lines).split())
    name = names[0] if names else platform.processor() or platform.machine()
    yield Finding(CONCERN, "model", "ok", name)
    if flags:
        yield instructions(flags)
    else:
        yield Finding(CONCERN, "instructions", "note", f"{platform.system()} does not list them in /proc/cpuinfo")
    yield threads(available(), limit("cpu"), os.environ.get("OMP_NUM_THREADS"))


def instructions(flags: set[str]) -> Finding:
    """Those that matter; a warning where sums of int8 products saturate."""
    there = [name for name, any_of in INSTRUCTIONS.items() if flags & set(any_of)]
    text = ", ".join(there) or "none that matters"
    if "avx2" in flags and "VNNI" not in there:
        fix = "Set `reduce_range: true` in quantizing stages; int8 gains less speed here"
        return Finding(CONCERN, "instructions", "warning", f"{text}; no VNNI: sums of int8 products saturate", fix)
    return Finding(CONCERN, "instructions", "ok", text)


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
        return Finding(CONCERN, "threads", "warning", text, fix)
    return Finding(CONCERN, "threads", "ok", text)


def available() -> int:
    """Cores that this process may be put on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit(kind: str, proc: Path = PROC, root: Path = CGROUPS) -> float | None:
    """The tightest limit that control groups put on this process: cores for "cpu", bytes for "memory"; None for none.

    Args:
        kind: "cpu" or "memory".
        proc: where the kernel says of which groups the process is.
        root: where the groups are, in version 2 or 1.
    """
    limits = []
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        base = root if not controllers else root / kind if kind in controllers.split(",") else None
        if base is None:
            continue
        parts = [part for part in path.split("/") if part]
        limits += [_limit(base.joinpath(*parts[:depth]), kind) for depth in range(len(parts) + 1)]
    values = [value for value in limits if value is not None]
    return min(values, default=None)


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
    lines = _lines(path)
    return lines[0].split() if lines else []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
