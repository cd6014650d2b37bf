"""What a piece of users' code was seen to read, and whether it is today what it was."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR

from pipeline.base.files import file_digest

LARGE = 2**28  # bytes; above them a file counts by its size and the time of its last change


@dataclass
class Seen:
    """What a piece of users' code was seen to read.

    Args:
        modules: name -> file and SHA-256 of the source that runs.
        files: path -> digest of the content, of a folder of its names; None for a file that is not there.
        variables: name -> SHA-256 of the value; None for one that is not set. Values may be secret.
        weights: what built it -> SHA-256 of the weights as they were built, where these were asked for; of a task the
            tensors that its functions hold.
        children: programs that were started, whose reading is not seen.
    """

    modules: dict[str, tuple[Path, str]] = field(default_factory=dict)
    files: dict[Path, str | None] = field(default_factory=dict)
    variables: dict[str, str | None] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    children: set[str] = field(default_factory=set)

    def add(self, other: "Seen") -> None:
        """Take what another piece was seen to read, which ran inside this one; what this one knows itself stays."""
        self.modules = {**other.modules, **self.modules}
        self.files = {**other.files, **self.files}
        self.variables = {**other.variables, **self.variables}
        self.weights = {**other.weights, **self.weights}
        self.children |= other.children

    def is_current(self) -> bool:
        """Whether all of it is today what it was."""
        return (
            all(content_digest(file) == digest for file, digest in self.modules.values())
            and all(content_digest(file) == digest for file, digest in self.files.items())
            and all(variable_digest(name) == digest for name, digest in self.variables.items())
        )


def content_digest(file: Path) -> str | None:
    """SHA-256 of a file, of a large one its size and time, of a folder of its names; None where there is none."""
    try:
        status = file.stat()
        if S_ISDIR(status.st_mode):
            return hashlib.sha256("\0".join(sorted(os.listdir(file))).encode(errors="surrogateescape")).hexdigest()
        if status.st_size > LARGE:
            return f"{status.st_size} bytes of {status.st_mtime_ns}"
        return file_digest(file)
    except OSError:
        return None


def variable_digest(name: str) -> str | None:
    """SHA-256 of the value of a variable of the environment; None where it is not set."""
    value = dict.get(os.environ._data, os.environ.encodekey(name))  # type: ignore[attr-defined]
    return None if value is None else hashlib.sha256(value).hexdigest()
