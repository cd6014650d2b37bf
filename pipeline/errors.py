"""Errors that a user can act on: where, what was found, what was expected, what to do, and the exit code."""

import errno
from pathlib import Path
from types import TracebackType


class Note(str):
    """What a stage's check says in the plan without meaning that anything is wrong."""


_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class ShrinkError(Exception):
    """One clear message with an exit code.

    Args:
        found: what is wrong, as a clause: "`epochs` is -1".
        where: the place a user can go to: "stages[1] (prune.channels)", "my.yaml:12".
        expected: what would have been right, as a noun phrase: "a number above 0".
        fix: what to do, as a sentence without its full stop.
    """

    exit_code = 70
    run: Path | None = None
    """The folder of the run that it ended."""

    def __init__(self, found: str, *, where: str = "", expected: str = "", fix: str = "") -> None:
        super().__init__(found)
        self.found, self.where, self.expected, self.fix = found, where, expected, fix

    def __str__(self) -> str:
        text = f"{self.where}: {self.found}" if self.where else self.found
        text += f"; expected {self.expected}" if self.expected else ""
        if not self.fix:
            return text
        return f"{text.removesuffix('?')}{'?' if text.endswith('?') else '.'} {self.fix}."


class ConfigError(ShrinkError):
    """The pipeline file, its files or its data cannot work; raised before any work."""

    exit_code = 2


class StageError(ShrinkError):
    """A stage ran and failed."""

    exit_code = 3


class NotFinite(StageError):
    """What a model answers is infinite or no number."""


class ResourceError(ShrinkError):
    """Disk or memory ran out."""

    exit_code = 4


class ForeignError(ShrinkError):
    """A file from outside crashed, or hung, the process that runs it."""

    exit_code = 6


class TrackingError(ShrinkError):
    """Tracking was required and could not be reached."""

    exit_code = 7


class LockTimeoutError(ShrinkError):
    """Another process holds a lock for too long."""

    exit_code = 75


class Interruption(ShrinkError):
    """The user or the system asked to stop; raised where work can be taken up again."""

    exit_code = 130


class blame:
    """Turn what is raised inside the block into one `error` that says where.

    For code that we call and do not own: a user's file, task or stage, a library inside a stage. Errors of ours pass
    with the place put before theirs, `sys.exit` is an error like any other, exhausted disk or memory becomes a
    `ResourceError`, interrupts pass untouched.

    Example:
        >>> with blame(ConfigError, "models.py", fix="Repair the file"):
        ...     1 / 0
        Traceback (most recent call last):
        pipeline.errors.ConfigError: models.py: ZeroDivisionError: division by zero. Repair the file.
    """

    def __init__(self, error: type[ShrinkError], where: str, *, fix: str = "") -> None:
        self.error, self.where, self.fix = error, where, fix

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: type | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(raised, ShrinkError):
            if self.where not in raised.where:
                raised.where = f"{self.where}: {raised.where}" if raised.where else self.where
        elif isinstance(raised, SystemExit):  # of a user's file; as an ending of ours it would look like success
            raise self.error(f"it called sys.exit({raised.code})", where=self.where, fix=self.fix) from raised
        elif isinstance(raised, Exception):
            where, text = self.where, f"{type(raised).__name__}: {raised}".rstrip(": ").rstrip(".")
            if is_exhausted(raised):
                raise ResourceError(text, where=where, fix="Free disk or memory, or lower batch_size") from raised
            raise self.error(text, where=where, fix=self.fix) from raised


def refused(raised: Exception) -> ConfigError | None:
    """The error where this user may not read or write what it takes; None for anything else."""
    if not isinstance(raised, OSError) or raised.errno not in _REFUSED:
        return None
    fix = "Give this user the right to it, or choose another folder"
    return ConfigError(raised.strerror or str(raised), where=str(raised.filename or ""), fix=fix)


def is_exhausted(raised: Exception) -> bool:
    """Whether disk or memory ran out, in any of the ways in which torch and the system say so."""
    if isinstance(raised, OSError):
        return raised.errno in _EXHAUSTED
    # By name and by text: importing torch or safetensors here would cost every command two seconds.
    is_torch = type(raised).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(raised)
    return isinstance(raised, MemoryError) or is_torch or f"(os error {errno.ENOSPC})" in str(raised)
