"""Files written whole or not at all, locks, links and digests."""

import atexit
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from math import isinf
from pathlib import Path
from typing import Any

SECONDS_BETWEEN_TRIES = 0.1
SCRATCH, OWNER = "shrinkline-", "owner"
SECONDS_TO_LOCK = 60
"""For a process to hold the lock of a folder that it has made."""
LARGEST_INTEGER = 2**63 - 1


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all, text as UTF-8; see `whole`."""
    with whole(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write a file to, which at the end is on disk and takes the place of `path`, or goes."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, temporary: Path) -> Iterator[Path]:
    """The same of a folder: `temporary`, made where it is not there, beside `path`, which is not there or empty.

    Whoever the umask lets read new files may read all of it: libraries and temporary folders keep theirs to their user.
    """
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        open_to_others(temporary)
        for inner in (*temporary.rglob("*"), temporary):
            if inner.is_file() or inner.is_dir():
                sync(inner)
        temporary.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_json(path: Path) -> Any:
    """What a file of JSON holds; see `parse_json`. Raises ValueError, and OSError where it cannot be read."""
    return parse_json(path.read_bytes())


def parse_json(text: str | bytes) -> Any:
    """JSON of which every number fits 64 bits and is finite, and every text has an encoding. Raises ValueError."""
    from pydantic_core import from_json

    document = from_json(text, allow_inf_nan=False)
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif (isinstance(value, int) and abs(value) > LARGEST_INTEGER) or (isinstance(value, float) and isinf(value)):
            raise ValueError("it holds a number that is too large")
    return document


def open_to_others(folder: Path) -> None:
    """Give a folder and all below it the modes that new ones have by the umask."""
    sample = folder / ".mode"
    sample.mkdir()
    mode = sample.stat().st_mode & 0o777
    sample.rmdir()
    for inner in (folder, *folder.rglob("*")):
        if not inner.is_symlink():
            inner.chmod(mode if inner.is_dir() else mode & 0o666)


def sync(path: Path) -> None:
    """Have the kernel write a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, timeout: float | None = None, check: Callable[[], object] = lambda: None) -> Iterator[bool]:
    """Hold a lock of the kernel's on a file, which stays; gives whether it is ours.

    Whoever dies lets go of it, and no child of a holder goes on holding it.

    Args:
        path: the file; its folder is there.
        timeout: seconds to wait for another process; None waits for ever.
        check: called while waiting; raises where that is to end.
    """
    from filelock import FileLock, Timeout

    # Without the kernel's lock it would make do with the file's existence, which outlives a holder that is killed.
    lock = FileLock(path, poll_interval=SECONDS_BETWEEN_TRIES, fallback_to_soft=False)
    with suppress(Timeout):
        lock.acquire(-1 if timeout is None else timeout, cancel_check=lambda: bool(check()))
    try:
        yield lock.is_locked
    finally:
        lock.release()


def scratch() -> Path:
    """A folder for what this process needs while it lives; those of processes that were killed are removed."""
    return _scratch(os.getpid())


@cache
def _scratch(_: int) -> Path:
    """One a process: a forked one must not remove that of its parent. The kernel's lock tells whether it lives."""
    from filelock import FileLock

    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH))
    lock = FileLock(folder / OWNER, fallback_to_soft=False)
    lock.acquire()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(lock.release)
    return folder


def _sweep(above: Path) -> None:
    """Remove the folders that processes left which were killed, as far as they are this user's."""
    for owner in above.glob(f"{SCRATCH}*/{OWNER}"):
        with suppress(OSError):  # gone meanwhile, or another user's
            if time.time() - owner.stat().st_mtime > SECONDS_TO_LOCK:
                with locked(owner, timeout=0) as is_left:
                    if is_left:
                        shutil.rmtree(owner.parent, ignore_errors=True)


def files_below(folder: Path, pattern: str = "**/*") -> list[Path]:
    """All files below a folder that a pattern names, in order."""
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def link(source: Path, target: Path, files: Iterable[Path] | None = None) -> None:
    """Put a folder's files, all unless given, into another one, as hard links where it can be done, else as copies."""
    for file in files_below(source) if files is None else files:
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        try:
            os.link(file, place)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, place)


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def folder_digest(folder: Path, pattern: str = "**/*") -> str:
    """SHA-256 over the names and contents of the files below a folder that a pattern names, in hexadecimal."""
    digest = hashlib.sha256()
    for file in files_below(folder, pattern):
        digest.update(f"{file.relative_to(folder)}\0".encode() + bytes.fromhex(file_digest(file)))
    return digest.hexdigest()
