"""Objects that a config names by a digest of all that they are, and that are lent to it while a run lasts.

Another process has none of them: what is asked for there is one error that says what to do. The two functions here are
what `use:` of such a config says, and part of the format of a saved model.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from torch import nn

from pipeline.base.use import LENT
from pipeline.errors import ConfigError
from pipeline.task import Task

MODULE, TASK = f"{LENT}:module", f"{LENT}:task"

AGAIN = "Make the same call again, which takes what is stored from the store"


@dataclass(frozen=True)
class Loan:
    """An object that is lent.

    Args:
        what: it is, for messages.
        value: the object.
        opaque: types in it of which no digest can tell more than that they are there.
    """

    what: str
    value: Any
    opaque: frozenset[str] = frozenset()

    @property
    def warning(self) -> str | None:
        """What no key covers, where there is something."""
        if not self.opaque:
            return None
        fix = "when that changes, have results made anew with another folder for --runs"
        return f"{self.what} holds what is in no key, of {', '.join(sorted(self.opaque))}: {fix}"


_lent: ContextVar[Mapping[str, Loan] | None] = ContextVar("lent", default=None)


@contextmanager
def lending(objects: Mapping[str, Loan]) -> Iterator[None]:
    """Lend objects by their digests while the block lasts."""
    token = _lent.set({**(_lent.get() or {}), **objects})
    try:
        yield
    finally:
        _lent.reset(token)


def module(digest: str, of: str) -> nn.Module:
    """A copy of the module that was given from Python.

    Args:
        digest: of all that it is.
        of: its class, for messages.

    Raises:
        ConfigError: it was given in another process, or to another call.
    """
    fix = f"{AGAIN}; or give shrinkline.compress a `builder`, such as models.py:net"
    return copy.deepcopy(_borrowed(digest, f"the model, a {of},", fix))  # type: ignore[no-any-return]


def task(digest: str, of: str) -> Task:
    """The task that was given from Python. Raises ConfigError as `module`."""
    return _borrowed(digest, f"the task, with {of},", f"{AGAIN}; or write it as a file")  # type: ignore[no-any-return]


def _borrowed(digest: str, what: str, fix: str) -> Any:
    objects = _lent.get() or {}
    if digest not in objects:
        raise ConfigError(f"{what} was given from Python as an object, which this process has not got", fix=fix)
    return objects[digest].value
