"""Reading that Python's audit does not tell of: variables of the environment, and files that safetensors opens."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Protocol
from unittest.mock import patch


class Listener(Protocol):
    """Who is told; each is called straight from where it is read."""

    def opened(self, path: Any) -> None:
        """A file is about to be opened."""

    def asked(self, name: str) -> None:
        """A variable is read."""

    def asked_for_all(self) -> None:
        """All variables are gone through."""


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell the listener of such reading while the block lasts."""
    import safetensors.torch  # takes its time

    environment: Any = os.environ
    usual = type(environment)
    opening = _telling(safetensors.safe_open, listener)
    with ExitStack() as undo:
        for module in (safetensors, safetensors.torch):
            undo.enter_context(patch.object(module, "safe_open", opening))
        environment.__class__ = _listening_environment(usual, listener)
        undo.callback(setattr, environment, "__class__", usual)
        yield


def _telling(opener: Callable[..., Any], listener: Listener) -> Callable[..., Any]:
    @wraps(opener)
    def opening(filename: Any, *args: Any, **kwargs: Any) -> Any:
        listener.opened(filename)
        return opener(filename, *args, **kwargs)

    return opening


def _listening_environment(usual: type, listener: Listener) -> type:
    class Listening(usual):  # type: ignore[misc]
        def __getitem__(self, name: str) -> str:
            listener.asked(name)
            value: str = super().__getitem__(name)
            return value

        def __iter__(self) -> Iterator[str]:
            listener.asked_for_all()
            return iter(super().__iter__())

    return Listening
