"""Libraries that say too much or take too long, made quiet for a while."""

import atexit
import gc
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def muted(names: Sequence[str], below: int = logging.ERROR) -> Iterator[None]:
    """Without warnings, and without what the loggers of these names say below a level."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(below)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def unreported() -> None:
    """Have libraries that would report to their makers not do so, unless the environment says otherwise."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "true")


def leave_garbage() -> None:
    """Have this process end without a last search for cycles of garbage, which takes a third of importing torch."""
    atexit.register(gc.freeze)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the search for cycles of garbage: it takes a third of the time of all that is imported, and finds none.

    What works for long inside turns it on again, with `gc.enable`.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
