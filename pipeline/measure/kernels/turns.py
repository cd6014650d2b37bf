"""Two files in turns: the seconds of an inference of each, round by round, so that what drifts is shared.

Nothing here imports torch, for files from outside are timed in a process of their own; see `child`.
"""

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from pipeline.measure.kernels.session import open_plain

FEWEST_ROUNDS = 3
"""Of which there is an interval."""
OPENINGS = 3
"""Times that both files are opened anew, for a session has its own luck with memory."""
ROUNDS = 5
BLOCK_SECONDS, MOST_RUNS = 3e-4, 15
"""A block lasts so long, but for at most so many runs."""
ENOUGH_SECONDS = 2.5
"""No round begins after that, but for the fewest that tell a ratio."""
LONGEST = 0.7
"""Seconds of one inference of both, above which they are run once alone."""


class Timed(NamedTuple):
    """A file and the arrays that one call of it takes, by its names; what it does not take is left aside."""

    path: Path
    feed: Mapping[str, Any]


class _Runner:
    def __init__(self, timed: Timed) -> None:
        self.session = open_plain(timed.path)
        self.feed = {port.name: timed.feed[port.name] for port in self.session.get_inputs() if port.name in timed.feed}
        self.fastest(1)  # it plans its memory
        self.seconds = self.fastest(1)

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
        first, second = _Runner(one), _Runner(other)
        if first.seconds + second.seconds > LONGEST:
            return [first.seconds], [second.seconds]
        runs = max(1, min(MOST_RUNS, round(BLOCK_SECONDS / max(first.seconds, second.seconds, 1e-6))))
        for i in range(ROUNDS):
            if len(rounds) >= FEWEST_ROUNDS and perf_counter() > until:
                break
            after = second.fastest(runs) if i % 2 else 0.0
            rounds.append((first.fastest(runs), after or second.fastest(runs)))
    return [before for before, _ in rounds], [after for _, after in rounds]
