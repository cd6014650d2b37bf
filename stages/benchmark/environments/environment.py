"""Pinned packages of a runtime in a folder of their own, made when asked for, and whole or not there."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pipeline.base.files import locked
from pipeline.errors import ConfigError, ResourceError, StageError

FULL = ("No space left on device", "Disk quota exceeded")
SHARED = "shared.pth"
LAST = 5  # lines of what failed


@dataclass(frozen=True)
class Environment:
    """The packages of one runtime.

    They lie in `$XDG_CACHE_HOME/shrinkline/runtimes`, by default `~/.cache`: all runs of a user have them in common.

    Args:
        name: of the runtime, whose pins, with the digests of all packages, are in the file NAME.txt.
        package: the distribution whose version is the runtime's.
        imports: modules that must import, or it is not whole.
        torch: the release of torch that it is built for, such as "2.13", where it needs one: it takes that of this
            environment, for another one would be gigabytes.
        pins: the file, where it is not NAME.txt beside this one.
    """

    name: str
    package: str
    imports: tuple[str, ...]
    torch: str = ""
    pins: Path | None = None

    @property
    def folder(self) -> Path:
        """Where it is, or would be; another one for other pins, another Python and another torch."""
        parts = [self._pins.read_text(), sys.version, str(_torch_folder()) if self.torch else ""]
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "shrinkline" / "runtimes" / f"{self.name}-{digest[:16]}"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return _python(self.folder)

    @property
    def version(self) -> str:
        """Of the runtime, as pinned."""
        return str(self.pinned(self.package))

    def pinned(self, name: str) -> str | None:
        """The version of a package that it has, None of another one."""
        version = re.search(rf"^{re.escape(name)}==(\S+)", self._pins.read_text(), re.MULTILINE)
        return version and version[1]

    def missing(self) -> str | None:
        """Why it is not here, and the command that makes it; None where it is."""
        if unfit := self._unfit():
            return unfit
        if self.folder.is_dir():
            return None
        return f"its environment is not made: shrink runtimes install {self.name}"

    def install(self, say: Callable[[str], object]) -> Path:
        """Make it where it is not there, and give its folder.

        Args:
            say: is told each line of pip's.

        Raises:
            ConfigError: it is built for another torch.
            StageError: pip failed, a digest is another one, or a module does not import.
            ResourceError: the disk is full.
        """
        if unfit := self._unfit():
            raise ConfigError(unfit)
        folder = self.folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                work = folder.with_name(f".{folder.name}")
                shutil.rmtree(work, ignore_errors=True)  # of one who was killed
                try:
                    self._fill(work, say)
                    _tell_scripts(work, folder)
                    work.rename(folder)
                finally:
                    shutil.rmtree(work, ignore_errors=True)
        return folder

    def _fill(self, work: Path, say: Callable[[str], object]) -> None:
        self._run([sys.executable, "-m", "venv", str(work)], say)
        options = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-input", "--progress-bar", "off"]
        self._run([str(_python(work)), "-m", "pip", "install", *options, "-r", str(self._pins)], say)
        if self.torch:
            (packages,) = work.glob("lib/python*/site-packages")
            (packages / SHARED).write_text(f"{_torch_folder()}\n")
        self._run([str(_python(work)), "-c", "; ".join(f"import {module}" for module in self.imports)], say)

    def _run(self, command: Sequence[str], say: Callable[[str], object]) -> None:
        lines: list[str] = []
        # What the user sets for this Python is not for that one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, env=environment, text=True, errors="replace", **streams) as process:  # type: ignore[call-overload]
            for line in process.stdout:
                lines.append(line.strip())
                say(lines[-1])
        if process.returncode:
            last = " | ".join(lines[-LAST:])
            where = f"the environment of {self.name}"
            if any(word in last for word in FULL):
                raise ResourceError(last, where=where, fix="Free some disk")
            step = " ".join([Path(command[0]).name, *command[1:4]])
            raise StageError(f"`{step}` ended with {process.returncode}: {last}", where=where)

    def _unfit(self) -> str | None:
        if not self.torch:
            return None
        version = metadata.version("torch")
        if version.split(".")[:2] == self.torch.split("."):
            return None
        return f"{self.package} {self.version} is built for torch {self.torch}, and here is {version}"

    @property
    def _pins(self) -> Path:
        return self.pins or Path(__file__).with_name(f"{self.name}.txt")


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _tell_scripts(work: Path, folder: Path) -> None:
    """Have scripts name the interpreter by the folder that it is going to be in."""
    for path in (work / "bin").iterdir():
        if not path.is_symlink() and b"\0" not in (content := path.read_bytes()):
            path.write_bytes(content.replace(bytes(work), bytes(folder)))


def _torch_folder() -> Path:
    """Where torch and what it needs are installed."""
    source = importlib.util.find_spec("torch")
    if source is None or source.origin is None:
        raise ConfigError("torch is not installed")
    return Path(source.origin).parents[1]
