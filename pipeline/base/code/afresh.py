"""Users' modules in Python's memory: those that are stale are taken out of it, so that importing makes them anew."""

import importlib
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from pipeline.base.code.places import is_users

INACCURACY = 2.0  # seconds, of the time at which a process is said to have begun


def changed_since_start(known: set[str]) -> set[str]:
    """Users' modules that were imported unseen, such as in a notebook, and whose file is newer than this process."""
    files = {name: Path(str(module.__file__)) for name, module in _users_modules().items() if name not in known}
    if not files:
        return set()
    import psutil  # type: ignore[import-untyped]  # it comes with accelerate

    start = psutil.Process().create_time() + INACCURACY
    times = {name: file.stat() for name, file in files.items() if file.is_file()}
    return {name for name, status in times.items() if max(status.st_mtime, status.st_ctime) > start}


def forget(stale: set[str]) -> None:
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


def _users_modules() -> dict[str, ModuleType]:
    """Those that importing again makes anew; what has a loader of its own, such as a test of pytest's, stays."""
    named = {name: module for name, module in sys.modules.items() if name != "__main__" and module is not None}
    users = {name: module for name, module in named.items() if is_users(str(getattr(module, "__file__", None)))}
    return {name: module for name, module in users.items() if isinstance(module.__loader__, SourceFileLoader)}


def _holds(module: ModuleType, stale: set[str]) -> bool:
    return any(_home(value) in stale for value in vars(module).values())


def _home(value: Any) -> str:
    """The module that a value is, or that defines it or its type."""
    if isinstance(value, ModuleType):
        return value.__name__
    return str(value.__module__ if isinstance(value, type | FunctionType) else type(value).__module__)
