"""How much longer one file takes than another, with its doubt."""

from math import log
from statistics import median
from typing import NamedTuple

from pipeline.base.estimate import Estimate
from pipeline.measure.kernels.seen import Eye
from pipeline.measure.kernels.turns import Timed
from pipeline.measure.statistics.ratios import interval

SLOWER = 1.05
"""A ratio of which the whole interval is above this is of a file that is slower."""


class Compared(NamedTuple):
    """The ratio of latencies, None where it was not taken; whether it is surely slower; seconds of the second file."""

    ratio: Estimate | None
    slower: bool
    seconds: float


def compared(eye: Eye, one: Timed, other: Timed) -> Compared:
    """The latency of `other` over that of `one`. What looks slower is timed again, and is slower in both or is not."""
    logs, seconds, slower = list[float](), list[float](), False
    for _ in range(2):
        before, after = eye.in_turns(one, other)
        rounds = [log(b / a) for a, b in zip(before, after, strict=True)]
        logs, seconds = logs + rounds, seconds + after
        slower = _low(rounds) > SLOWER
        if not slower:
            break
    ratio = interval(logs)
    if ratio.low is None or ratio.high is None:
        return Compared(None, False, median(seconds))
    return Compared(Estimate(value=ratio.value, low=ratio.low, high=ratio.high), slower, median(seconds))


def _low(rounds: list[float]) -> float:
    """The lower end of the ratio's interval; 0 where there are too few rounds to tell it."""
    return interval(rounds).low or 0.0
