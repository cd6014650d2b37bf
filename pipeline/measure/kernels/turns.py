"""Two files in turns: the seconds of an inference of each, round by round, so that what drifts is shared.

Nothing here imports torch, for files from outside are timed in a process of their own; see `child`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from pipeline.measure.kernels.session import open_plain

FEWEST_ROUNDS = 3
"""Of which there is an interval."""
OPENINGS = 3
"""Times that both files are opened anew, for a session has its own luck with memory."""
ROUNDS = 5
BLOCK_SECONDS, LEAST_RUNS, MOST_RUNS = 1e-2, 3, 15
"""Of the runs of a block the fastest counts. It lasts so long, but for so many runs at least and at most."""
ENOUGH_SECONDS = 2.5
"""No round begins after that, but for the fewest that tell a ratio."""
LONGEST = 0.4
"""Seconds of an inference above which there is no ratio."""


class Timed(NamedTuple):
    """A file and the arrays that one call of it takes, by its names; what it does not take is left aside."""

    path: Path
    feed: Mapping[str, Any]


class _Runner:
    """A session with what it is fed; `seconds` of its second inference, or of the first where that takes long."""

    def __init__(self, timed: Timed) -> None:
        self.session = open_plain(timed.path)
        self.feed = {port.name: timed.feed[port.name] for port in self.session.get_inputs() if port.name in timed.feed}
        self.seconds = self.fastest(1)  # it plans its memory
        if not self.takes_long:
            self.seconds = self.fastest(1)

    @property
    def takes_long(self) -> bool:
        return self.seconds > LONGEST

    def fastest(self, runs: int) -> float:
        seconds = []
        for _ in range(runs):
            start = perf_counter()
            self.session.run(None, self.feed)
            seconds.append(perf_counter() - start)
        return min(seconds)


def in_turns(one: Timed, other: Timed) -> tuple[list[float], list[float]]:
    """Of each round the fastest inference of each, in seconds; on one thread. Of large files there is one round.

    Raises:
        Exception: what ONNX Runtime raises where it does not load or run a file.
    """
    until, rounds = perf_counter() + ENOUGH_SECONDS, list[tuple[float, float]]()
    for _ in range(OPENINGS):
        if len(rounds) >= FEWEST_ROUNDS and perf_counter() > until:
            break
        second = _Runner(other)
        first = second if second.takes_long else _Runner(one)
        if first.takes_long:
            return [first.seconds], [second.seconds]
        rounds += _rounds(first, second, until, FEWEST_ROUNDS - len(rounds))
    return [before for before, _ in rounds], [after for _, after in rounds]


def _rounds(first: _Runner, second: _Runner, until: float, fewest: int) -> Iterator[tuple[float, float]]:
    """The times of both, round by round, each of them first every other time."""
    runs = max(LEAST_RUNS, min(MOST_RUNS, round(BLOCK_SECONDS / max(first.seconds, second.seconds, 1e-6))))
    for i in range(ROUNDS):
        if i >= fewest and perf_counter() > until:
            return
        after = second.fastest(runs) if i % 2 else None
        before = first.fastest(runs)
        yield before, second.fastest(runs) if after is None else after
