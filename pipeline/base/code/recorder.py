"""What users' code imports, opens and asks the environment for, seen while it runs.

A key holds what is seen here, so that nothing stale is called cached. Seen are modules, files that Python code opens,
those of safetensors and sqlite, variables that users' code itself reads and, while a stage runs, the names in folders
that it looks into. Not seen is what other libraries open by C code, and what another process reads: of the former the
weights of what is built count, of the latter a warning tells.
"""

import copy
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.base.code.afresh import changed_since_start, forget
from pipeline.base.code.callers import first_outside_of_python, is_for_users_code
from pipeline.base.code.fresh import FreshFinder
from pipeline.base.code.places import is_users
from pipeline.base.code.readers import listening
from pipeline.base.code.seen import Seen, content_digest, variable_digest

LISTINGS = ("os.listdir", "os.scandir")
CHILDREN = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork")
OF_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that say which process of a training it is: the key has how many there are."""


@dataclass(eq=False)
class Watch:
    """What is seen so far, the files that were opened; whether weights that are built, and listed folders, count."""

    seen: Seen
    weighs: bool
    lists: bool
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
    def watch(self, label: str, *, weighs: bool = False, lists: bool = False) -> Iterator[Seen]:
        """What users' code reads while the block lasts, and read before under the same label; filled at its end.

        Args:
            label: names the code and all arguments that it is called with.
            weighs: whether the weights of what is built in it count.
            lists: whether the names in folders that it looks into count; of data these have digests of their own.
        """
        watch = Watch(Seen(), weighs, lists or any(outer.lists for outer in self.watches))
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
            stale = changed_since_start(stale)
        if not stale:
            return False
        self.remembered.clear()
        forget(stale)
        return True

    @contextmanager
    def _listening(self) -> Iterator[None]:
        if len(self.watches) > 1:
            yield
            return
        finder: Any = FreshFinder(self._imported)
        sys.meta_path.insert(0, finder)
        try:
            with listening(self):
                yield
        finally:
            sys.meta_path.remove(finder)

    def _imported(self, name: str, file: Path, digest: str) -> None:
        self.watches[-1].seen.modules[name] = file, digest

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watches:
            return
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, str | os.PathLike) and is_for_users_code():
                self._opened(Path(os.path.realpath(path)), mode, flags)
        elif event == "sqlite3.connect" or (event in LISTINGS and self.watches[-1].lists):
            self.opened(arguments[0])
        elif event in CHILDREN and is_for_users_code():
            self.watches[-1].seen.children.add(_program(event, arguments))

    def _opened(self, file: Path, mode: str | None, flags: int) -> None:
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if mode is None else set(mode) & set("wax+")
        if writes:
            self.written.add(file)
        elif file.suffix not in (".py", ".pyc") and is_users(str(file)):
            self.watches[-1].opened.add(file)

    def opened(self, path: Any) -> None:
        """Note a file that a library reads for users' code, or a folder that this looks into."""
        if self.watches and isinstance(path, str | os.PathLike) and is_for_users_code():
            self._opened(Path(os.path.realpath(path)), "r", 0)

    def asked(self, name: str) -> None:
        """Note a variable that users' code itself reads; not one of all that it goes through, as for a child."""
        frame = first_outside_of_python(sys._getframe(2))
        if frame is None or not self.watches or name in OF_LAUNCHERS or not is_users(frame.f_code.co_filename):
            return
        if self.iterating != (id(frame), frame.f_lasti):
            self.watches[-1].seen.variables[name] = variable_digest(name)

    def asked_for_all(self) -> None:
        """Note that users' code begins to go through all variables."""
        frame = first_outside_of_python(sys._getframe(2))
        self.iterating = (id(frame), frame.f_lasti) if frame else None


@cache
def recorder() -> Recorder:
    """The one of this process: what it sees, imported modules and the environment, are the process's too."""
    return Recorder()


def _program(event: str, arguments: tuple[Any, ...]) -> str:
    if event == "os.fork":
        return "a fork"
    called = arguments[1] if event == "subprocess.Popen" and arguments[1] else arguments[0]
    first = called if isinstance(called, str | bytes | os.PathLike) else next(iter(called))
    return os.path.basename(os.fsdecode(first).split()[0])
