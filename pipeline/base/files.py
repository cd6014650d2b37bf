"""Files written whole or not at all, locks, links and digests."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SECONDS_BETWEEN_TRIES = 0.1


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
    """The same of a folder: `temporary`, made where it is not there, beside `path`, which is not there or empty."""
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        for inner in (*temporary.rglob("*"), temporary):
            if inner.is_file() or inner.is_dir():
                sync(inner)
        temporary.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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


def files_below(folder: Path, pattern: str = "**/*") -> list[Path]:
    """All files below a folder that a pattern names, in order."""
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def link(source: Path, target: Path) -> None:
    """Put a folder's files into another one, as hard links where the file system can, else as copies."""
    for file in files_below(source):
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
