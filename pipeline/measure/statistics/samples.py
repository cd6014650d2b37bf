"""How many examples it takes until an interval decides whether a limit is kept."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
import scipy

from pipeline.base.estimate import Estimate
from pipeline.measure.statistics.pairs import Scores
from pipeline.measure.statistics.shares import LEVEL, difference_ends, ratio_ends, share_ends

POWER = 0.9
LARGE, MOST_SAMPLES = 10**5, 10**8


class Figure(NamedTuple):
    """What is decided by an interval, told so that more is better; `per` is what it is a share of."""

    value: float
    low: float
    high: float
    per: float


Decided = Callable[[Scores, float], Figure]
"""A figure of the counts (4,) of a table of pairs, which may be expected ones, at a level."""


def kept(counts: Scores, level: float = LEVEL) -> Figure:
    """The ratio of `ratio_interval`."""
    both, gained, lost, _ = counts
    low, high = ratio_ends(both, gained, lost, level)
    return Figure((both + gained) / (both + lost), float(low), float(high), both + lost)


def undropped(counts: Scores, level: float = LEVEL) -> Figure:
    """The difference of `difference_interval`, with the other sign."""
    total, (_, gained, lost, _) = float(counts.sum()), counts
    low, high = difference_ends(total, gained, lost, level)
    return Figure((gained - lost) / total, -float(high), -float(low), total)


def unlost(counts: Scores, level: float = LEVEL) -> Figure:
    """The share of examples that were lost, with the other sign."""
    total, lost = float(counts.sum()), counts[2]
    low, high = share_ends(lost, total, level)
    return Figure(-lost / total, -float(high), -float(low), total)


def samples_to_decide(
    table: Sequence[float], limit: float, figure: Decided, *, level: float = LEVEL, power: float = POWER
) -> int | None:
    """Examples at which a model like this one passes (its figure is above the limit) or fails in `power` of all cases.

    Those cases are all but the least lucky: the figure, off by its own limit of that certainty, must still have the end
    of its interval beyond the limit. It is found to half a percent; None above a hundred million.

    Args:
        table: both, gained, lost, neither, as counts or shares; taken for what is true of the model.
        limit: of the figure; negative for `undropped` and `unlost`.
        figure: `kept`, `undropped` or `unlost`.
        level: of the interval that decides.
        power: above a half.
    """
    shares = np.asarray(table, float) / sum(table)

    def decided(size: int) -> bool:
        counts = shares * size
        value, low, high, per = figure(counts, 2 * power - 1)
        if value > limit:
            return figure(_worse(counts, (value - low) * per), level).low >= limit
        # One more, for counts are whole: a limit of few losses from below lies between two of them.
        return figure(_worse(counts, (value - high) * per - 1), level).high < limit

    at = figure(shares * LARGE, LEVEL)
    high = samples_by_reach(Estimate(value=at.value, low=at.low, high=at.high), limit, LARGE, power)
    if high is None:
        return None
    low = high // 2
    while low and decided(low):
        low, high = low // 2, low
    while not decided(high):
        low, high = high, high + high // 4 + 1
        if high > MOST_SAMPLES:
            return None
    while high - low > 1 + low // 200:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def samples_by_reach(estimate: Estimate, limit: float, size: int, power: float = POWER) -> int | None:
    """`samples_to_decide` where there is an interval alone: it narrows with the square root of the number of examples.

    Args:
        estimate: the figure on `size` examples.
        limit: of the figure.
        size: number of examples.
        power: above a half.
    """
    margin = estimate.value - limit
    reach = estimate.value - estimate.low if margin > 0 else estimate.high - estimate.value
    if abs(margin) < 1e-6:
        return None
    needed = ceil(size * (reach_ratio(power) * reach / margin) ** 2)
    return needed if needed <= MOST_SAMPLES else None


def reach_ratio(power: float) -> float:
    """How often half an interval has to fit between a figure and its limit, to be decided in `power` of all cases."""
    return 1 + float(scipy.special.ndtri(power) / scipy.special.ndtri((1 + LEVEL) / 2))


def samples_needed(limit: float, accuracy: float = 0.95, flips: float = 0.05) -> int:
    """Examples at which a model exactly as accurate as its baseline keeps a retention limit in 90 % of all cases.

    Args:
        limit: the least retention, 0 < limit < 1.
        accuracy: of the baseline; what is usual where it is not known yet.
        flips: share of examples on which the two differ, half of it in each direction.
    """
    moved = flips / 2
    needed = samples_to_decide((max(accuracy - moved, 0), moved, moved, max(1 - accuracy - moved, 0)), limit, kept)
    return needed or MOST_SAMPLES


def _worse(counts: Scores, moved: float) -> Scores:
    """A table of which so many examples more are wrong; below zero more are right."""
    both, gained, lost, neither = counts
    if moved >= 0:
        first = min(moved, both)
        second = min(moved - first, gained)
    else:
        first = -min(-moved, lost)
        second = -min(-moved + first, neither)
    return np.array([both - first, gained - second, lost + first, neither + second])
