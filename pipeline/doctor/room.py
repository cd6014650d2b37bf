"""Disk and memory that are free."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.doctor.finding import Finding
from pipeline.doctor.processor import PROC, limit

CONCERN = "room"
LITTLE_DISK, LITTLE_MEMORY = 2e9, 2e9  # bytes; a run with torch, its store and an export takes about so much


def room(runs: Path) -> Iterable[Finding]:
    """The disk of the runs, that of temporary files, and memory."""
    yield disk("disk of runs", runs)
    yield disk("temporary files", Path(tempfile.gettempdir()))
    yield memory(free_memory(PROC / "meminfo"), limit("memory"))


def disk(name: str, folder: Path) -> Finding:
    """How much is free where a folder is or will be, and whether it can be written."""
    there = next((path for path in (folder.resolve(), *folder.resolve().parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        return Finding(CONCERN, name, "missing", f"{there} cannot be written", "Give another folder with --runs")
    if free < LITTLE_DISK:
        return Finding(CONCERN, name, "warning", f"{_size(free)} free at {there}", "shrink store gc")
    return Finding(CONCERN, name, "ok", f"{_size(free)} free at {there}")


def memory(free: float | None, most: float | None) -> Finding:
    """What a process may take.

    Args:
        free: bytes of the machine, None where it does not say.
        most: bytes that a container allows, None for all.
    """
    if free is None:
        return Finding(CONCERN, "memory", "note", "this system does not say how much is free")
    least = min(free, most) if most is not None else free
    text = f"{_size(free)} free" + (f", limited to {_size(most)} by the container" if most is not None else "")
    if least < LITTLE_MEMORY:
        return Finding(CONCERN, "memory", "warning", text, "Lower batch_size, or end other programs")
    return Finding(CONCERN, "memory", "ok", text)


def free_memory(meminfo: Path) -> float | None:
    """Bytes that can be taken without swapping."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kilobytes[0]) * 1024.0 if kilobytes else None


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
