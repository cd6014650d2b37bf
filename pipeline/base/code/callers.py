"""For whom a call is made, told by the calls that led to it: users' code, ours, a library, Python itself."""

import os
import sys
from functools import cache
from pathlib import Path
from types import FrameType

from pipeline.base.code.places import OURS, is_ours, is_users

READS_OF_DATA = ("Split.__getitem__",)
"""Where we call users' code whose reading the digests of the data cover."""


def is_for_users_code() -> bool:
    """Whether the call of the calling function is one of users' code that we have called.

    Not one for data, nor to import a library.
    """
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


def first_outside_of_python(frame: FrameType | None) -> FrameType | None:
    """The nearest call that is not Python's own, from `frame` outwards; None without any."""
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
