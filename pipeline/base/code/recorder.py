"""What users' code imports, opens and asks the environment for, seen while it runs.

A key holds what is seen here, so that nothing stale is called cached. Seen are modules, files that Python code opens,
and variables that users' code itself reads. Not seen is what a library opens by C code, such as safetensors, and what
another process reads: of the former the weights of what is built count, of the latter a warning tells.
"""

import copy
import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FrameType, FunctionType, ModuleType
from typing import Any

from pipeline.base.code.fresh import FreshFinder
from pipeline.base.code.places import OURS, is_ours, is_users
from pipeline.base.files import file_digest

LARGE = 2**28  # bytes; above them a file counts by its size and the time of its last change
CHILDREN = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork")
OF_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that say which process of a training it is: the key has how many there are."""
INACCURACY = 2.0  # seconds, of the time at which a process is said to have begun
READS_OF_DATA = ("Split.__getitem__",)
"""Where we call users' code whose reading the digests of the data cover."""


@dataclass
class Seen:
    """What a piece of users' code was seen to read.

    Args:
        modules: name -> file and SHA-256 of the source that runs.
        files: path -> digest of the content; None for a file that was asked for and is not there.
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


@dataclass(eq=False)
class Watch:
    """What is seen so far, the files that were opened, and whether the weights of what is built count."""

    seen: Seen
    weighs: bool
    opened: set[Path] = field(default_factory=set)


class Recorder:
    """Sees what users' code reads in this process, and remembers it: a second time it is read from memory.

    What Python remembers, which is modules and what they hold, stays right as long as nothing changes that was read
    for it; where something does, all users' modules are imported afresh; see `refresh`.
    """

    def __init__(self) -> None:
        self.watches: list[Watch] = []
        self.remembered: dict[str, Seen] = {}
        self.written: set[Path] = set()
        self.held: dict[Path, str] | None = None
        self.iterating: tuple[int, int] | None = None
        sys.addaudithook(self._heard)

    @contextmanager
    def watch(self, label: str, *, weighs: bool = False) -> Iterator[Seen]:
        """What users' code reads while the block lasts, and read before under the same label; filled at its end.

        Args:
            label: names the code and all arguments that it is called with.
            weighs: whether the weights of what is built in it count.
        """
        watch = Watch(Seen(), weighs)
        self.watches.append(watch)
        try:
            with self._listening():
                yield watch.seen
        finally:
            self.watches.remove(watch)
            watch.seen.files |= {file: content_digest(file) for file in watch.opened - self.written}
            watch.seen.add(self.remembered.get(label, Seen()))
            self.remembered[label] = copy.deepcopy(watch.seen)  # which whoever has it may add to
            if self.watches:
                self.watches[-1].seen.add(watch.seen)

    def note_weights(self, builder: str, digest: Callable[[], str]) -> None:
        """Keep the digest of what a builder gave, where weights count, the first time that it is called."""
        if self.watches and self.watches[-1].weighs and builder not in self.watches[-1].seen.weights:
            self.watches[-1].seen.weights[builder] = digest()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let each folder of users' files be, while the block lasts, the package that it was at its first import.

        What is edited while a run lasts is not what runs.
        """
        before, self.held = self.held, {} if self.held is None else self.held
        try:
            yield
        finally:
            self.held = before

    def held_as(self, folder: Path, package: Callable[[], str]) -> str:
        """The name of a folder's package: the one that it has had in the block of `holding`, else a new one."""
        if self.held is None:
            return package()
        if folder not in self.held:
            self.held[folder] = package()
        return self.held[folder]

    def refresh(self) -> bool:
        """Have users' modules imported afresh where anything that they were made of has changed; gives whether."""
        stale = {name for seen in self.remembered.values() for name in seen.modules}
        if all(seen.is_current() for seen in self.remembered.values()):
            stale = _changed_since_start(stale)
        if not stale:
            return False
        self.remembered.clear()
        _forget(stale)
        return True

    @contextmanager
    def _listening(self) -> Iterator[None]:
        if len(self.watches) > 1:
            yield
            return
        finder: Any = FreshFinder(self._imported)
        environment: Any = os.environ
        usual = type(environment)
        sys.meta_path.insert(0, finder)
        environment.__class__ = _listening_environment(usual)
        try:
            yield
        finally:
            environment.__class__ = usual
            sys.meta_path.remove(finder)

    def _imported(self, name: str, file: Path, digest: str) -> None:
        self.watches[-1].seen.modules[name] = file, digest

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watches:
            return
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, str | os.PathLike) and _is_for_users_code():
                self._opened(Path(os.path.realpath(path)), mode, flags)
        elif event in CHILDREN and _is_for_users_code():
            self.watches[-1].seen.children.add(_program(event, arguments))

    def _opened(self, file: Path, mode: str | None, flags: int) -> None:
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if mode is None else set(mode) & set("wax+")
        if writes:
            self.written.add(file)
        elif file.suffix not in (".py", ".pyc") and is_users(str(file)):
            self.watches[-1].opened.add(file)

    def asked(self, name: str) -> None:
        """Note a variable that users' code itself reads; not one of all that it goes through, as for a child."""
        frame = _first_outside_of_python(sys._getframe(2))
        if frame is None or not self.watches or name in OF_LAUNCHERS or not is_users(frame.f_code.co_filename):
            return
        if self.iterating != (id(frame), frame.f_lasti):
            self.watches[-1].seen.variables[name] = variable_digest(name)

    def asked_for_all(self) -> None:
        """Note that users' code begins to go through all variables."""
        frame = _first_outside_of_python(sys._getframe(2))
        self.iterating = (id(frame), frame.f_lasti) if frame else None


@cache
def recorder() -> Recorder:
    """The one of this process: what it sees, imported modules and the environment, are the process's too."""
    return Recorder()


def content_digest(file: Path) -> str | None:
    """SHA-256 of a file, of a large one its size and the time of its last change; None where there is none."""
    try:
        status = file.stat()
        if status.st_size > LARGE:
            return f"{status.st_size} bytes of {status.st_mtime_ns}"
        return file_digest(file)
    except OSError:
        return None


def variable_digest(name: str) -> str | None:
    """SHA-256 of the value of a variable of the environment; None where it is not set."""
    value = dict.get(os.environ._data, os.environ.encodekey(name))  # type: ignore[attr-defined]
    return None if value is None else hashlib.sha256(value).hexdigest()


def _listening_environment(usual: type) -> type:
    class Listening(usual):  # type: ignore[misc]
        def __getitem__(self, name: str) -> str:
            recorder().asked(name)
            value: str = super().__getitem__(name)
            return value

        def __iter__(self) -> Iterator[str]:
            recorder().asked_for_all()
            return iter(super().__iter__())

    return Listening


def _is_for_users_code() -> bool:
    """Whether the running call is one of users' code that we have called: not for data, nor to import a library."""
    frame: FrameType | None = sys._getframe(2)
    users = ours = False
    while frame:
        file = frame.f_code.co_filename
        if not users and file.startswith("<frozen importlib._bootstrap"):
            return False
        users = users or is_users(file) or _is_task_of_ours(file)
        if _is_machinery(file):
            if users:
                return frame.f_code.co_qualname not in READS_OF_DATA
            ours = True
        frame = frame.f_back
    return users and not ours  # in a thread of its own; below us there may be a user's script


def _program(event: str, arguments: tuple[Any, ...]) -> str:
    if event == "os.fork":
        return "a fork"
    called = arguments[1] if event == "subprocess.Popen" and arguments[1] else arguments[0]
    first = called if isinstance(called, str | bytes | os.PathLike) else next(iter(called))
    return os.path.basename(os.fsdecode(first).split()[0])


def _first_outside_of_python(frame: FrameType | None) -> FrameType | None:
    while frame and (frame.f_code.co_filename.startswith("<frozen") or _is_of_python(frame.f_code.co_filename)):
        frame = frame.f_back
    return frame


@cache
def _is_of_python(file: str) -> bool:
    path = os.path.realpath(file)
    return path.startswith(os.path.dirname(os.__file__)) and "site-packages" not in path


@cache
def _is_task_of_ours(file: str) -> bool:
    """Whether it is of the built-in tasks, which read for the user."""
    return Path(os.path.realpath(file)).is_relative_to(OURS / "pipeline" / "tasks")


@cache
def _is_machinery(file: str) -> bool:
    return is_ours(Path(os.path.realpath(file))) and not _is_task_of_ours(file)


def _users_modules() -> dict[str, ModuleType]:
    """Those that importing again makes anew; what has a loader of its own, such as a test of pytest's, stays."""
    named = {name: module for name, module in sys.modules.items() if name != "__main__" and module is not None}
    users = {name: module for name, module in named.items() if is_users(str(getattr(module, "__file__", None)))}
    return {name: module for name, module in users.items() if isinstance(module.__loader__, SourceFileLoader)}


def _changed_since_start(known: set[str]) -> set[str]:
    """Users' modules that were imported unseen, such as in a notebook, and whose file is newer than this process."""
    files = {name: Path(str(module.__file__)) for name, module in _users_modules().items() if name not in known}
    if not files:
        return set()
    import psutil  # type: ignore[import-untyped]  # it comes with accelerate

    start = psutil.Process().create_time() + INACCURACY
    times = {name: file.stat() for name, file in files.items() if file.is_file()}
    return {name for name, status in times.items() if max(status.st_mtime, status.st_ctime) > start}


def _forget(stale: set[str]) -> None:
    """Take modules, and all users' modules that hold something of theirs, out of Python's memory."""
    modules = _users_modules()
    while more := {name for name, module in modules.items() if name not in stale and _holds(module, stale)}:
        stale |= more
    for name in stale & sys.modules.keys():
        module = sys.modules.pop(name)
        above, _, last = name.rpartition(".")
        if above in sys.modules and vars(sys.modules[above]).get(last) is module:
            delattr(sys.modules[above], last)
    importlib.invalidate_caches()


def _holds(module: ModuleType, stale: set[str]) -> bool:
    return any(_home(value) in stale for value in vars(module).values())


def _home(value: Any) -> str:
    """The module that a value is, or that defines it or its type."""
    if isinstance(value, ModuleType):
        return value.__name__
    return str(value.__module__ if isinstance(value, type | FunctionType) else type(value).__module__)
