"""The time of single inferences, one after the other."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns

from stages.benchmark.runners.loaded import Step

FEWEST = 5
"""Samples at least, however long one takes."""


def warm(step: Step, count: int) -> list[int]:
    """Nanoseconds of the first calls of `step`, made and timed as those that count."""
    return [_timed(step) for _ in range(count)]


def sample(step: Step, seconds: float, iterations: int | None = None, fewest: int = FEWEST) -> list[int]:
    """Nanoseconds of each call of `step`.

    Args:
        step: one inference.
        seconds: how long to go on; used where `iterations` is None.
        iterations: number of calls.
        fewest: calls at least, however long they take; used where `iterations` is None.
    """
    samples: list[int] = []
    with uncollected():
        end = perf_counter_ns() + int(seconds * 1e9)
        while len(samples) < (iterations or fewest) or (not iterations and perf_counter_ns() < end):
            samples.append(_timed(step))
    return samples


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is collected inside the block, as timeit does: a collection would hit one sample at random."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _timed(step: Step) -> int:
    start = perf_counter_ns()
    step()
    return perf_counter_ns() - start
