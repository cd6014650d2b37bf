"""The doubt beside a number: intervals and tests for two models scored on the same examples.

For right-or-wrong scores everything comes from the 2x2 table of pairs: both right, only the first, only the second,
neither. Score intervals invert a test, so they have width even when no example flipped.
"""

from collections.abc import Callable
from math import copysign, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import optimize, stats

Scores = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 2000
LARGEST_RATIO = 1e6


class Estimate(BaseModel):
    """A figure with its 95 % interval."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)
    value: float
    low: float
    high: float


class Pairs(NamedTuple):
    """Counts of paired right-or-wrong outcomes of a model and its baseline."""

    both: int
    gained: int  # the model alone is right
    lost: int  # the baseline alone is right
    neither: int


def is_right_or_wrong(*scores: Scores) -> bool:
    """Whether all scores are 0 or 1."""
    return all(bool(np.isin(s, (0.0, 1.0)).all()) for s in scores)


def pairs(model: Scores, baseline: Scores) -> Pairs:
    """The 2x2 table of two models' right-or-wrong scores (N,) on the same examples."""
    a, b = model > 0.5, baseline > 0.5
    return Pairs(int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()))


def retention(model: Scores, baseline: Scores, seed: int = 0) -> Estimate | None:
    """Mean score of the model over that of the baseline, with a paired 95 % interval.

    None where the baseline's mean is not above zero or a score is below it: a ratio means nothing there.
    """
    if baseline.mean() <= 0 or min(model.min(), baseline.min()) < 0:
        return None
    if is_right_or_wrong(model, baseline):
        return ratio_interval(pairs(model, baseline))
    return _bootstrap(lambda a, b, axis=-1: a.mean(axis) / b.mean(axis), (model, baseline), seed)


def drop(model: Scores, baseline: Scores, seed: int = 0) -> Estimate:
    """Mean score of the baseline minus that of the model, with a paired 95 % interval; below zero is a gain."""
    if is_right_or_wrong(model, baseline):
        return difference_interval(pairs(model, baseline))
    return _bootstrap(lambda a, b, axis=-1: (b - a).mean(axis), (model, baseline), seed)


def ratio_interval(table: Pairs) -> Estimate:
    """Ratio of two paired proportions, model over baseline, with the asymptotic score interval.

    Reference:
        Tang, Tang and Chan: On tests of equivalence via non-unity relative risk for matched-pair design, Statistics
        in Medicine 22, 2003; in the notation of Fagerland, Lydersen and Laake: Statistical Analysis of Contingency
        Tables, 2017, section 8.7.
    """
    both, gained, lost, _ = table
    first, second = both + gained, both + lost
    total, seen = sum(table), both + gained + lost

    def statistic(ratio: float) -> float:
        a, b = total * (1 + ratio), second * ratio**2 - (both + gained + 2 * lost)
        c = lost * (1 - ratio) * seen / total
        share = (sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = total * (1 + ratio) * share + seen * (ratio - 1)
        return _standardized(first - ratio * second, variance)

    value = first / second
    low = _invert(statistic, 1e-9, value, +1) if first else 0.0
    return Estimate(value=value, low=low, high=_invert(statistic, max(value, 1e-9), LARGEST_RATIO, -1))


def difference_interval(table: Pairs) -> Estimate:
    """Difference of two paired proportions, baseline minus model, with the asymptotic score interval.

    Reference:
        Tango: Equivalence test and confidence interval for the difference in proportions for the paired-sample
        design, Statistics in Medicine 17, 1998.
    """
    _, gained, lost, _ = table
    total = sum(table)

    def statistic(difference: float) -> float:
        a, b = 2 * total, -lost - gained + (2 * total - lost + gained) * difference
        c = -gained * difference * (1 - difference)
        share = (sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = total * (2 * share + difference * (1 - difference))
        return _standardized(lost - gained - total * difference, variance)

    value = (lost - gained) / total
    return Estimate(
        value=value,
        low=_invert(statistic, -1 + 1e-9, value, +1) if gained < total else -1.0,
        high=_invert(statistic, value, 1 - 1e-9, -1) if lost < total else 1.0,
    )


def mcnemar_p(table: Pairs) -> float:
    """Exact conditional McNemar test, two-sided: could the flips be a fair coin? (McNemar 1947)."""
    flips = table.gained + table.lost
    return 1.0 if flips == 0 else float(stats.binomtest(table.lost, flips, 0.5).pvalue)


def metric_interval(metric: Callable[[NDArray[np.intp]], float], size: int, seed: int = 0) -> Estimate:
    """A metric over a whole set, with a percentile bootstrap over its examples.

    Args:
        metric: gives the figure for the examples at these positions.
        size: number of examples.
    """
    draw = np.random.default_rng(seed)
    values = [metric(draw.integers(0, size, size)) for _ in range(200)]
    low, high = np.nanpercentile(values, [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2])
    return Estimate(value=metric(np.arange(size)), low=float(low), high=float(high))


def samples_needed(limit: float, accuracy: float = 0.95, flips: float = 0.05) -> int:
    """Examples at which a model exactly as accurate as its baseline clears a retention limit.

    Args:
        limit: the least retention, 0 < limit < 1.
        accuracy: of the baseline; what is usual where it is not known yet.
        flips: share of examples on which the two differ, half of it in each direction.
    """

    def low(size: int) -> float:
        moved = round(flips * size / 2)
        both = max(round(accuracy * size) - moved, 0)
        return ratio_interval(Pairs(both, moved, moved, max(size - both - 2 * moved, 0))).low

    size = 20
    while low(size) < limit:
        size = round(size * 1.1) + 1
    return size


def _standardized(excess: float, variance: float) -> float:
    if variance <= 0:
        return copysign(np.inf, excess) if excess else 0.0
    return excess / sqrt(variance)


def _invert(statistic: Callable[[float], float], low: float, high: float, sign: int) -> float:
    """Where in [low, high] the falling test statistic passes sign * z; the far end where it never does."""
    z = sign * stats.norm.ppf((1 + LEVEL) / 2)
    ends = statistic(low) - z, statistic(high) - z
    if ends[0] * ends[1] > 0:
        return low if sign > 0 else high
    return float(optimize.brentq(lambda x: statistic(x) - z, low, high, xtol=1e-10))


def _bootstrap(figure: Callable[..., Scores], data: tuple[Scores, ...], seed: int) -> Estimate:
    """Percentile bootstrap over examples, drawn in pairs (Efron 1979)."""
    result = stats.bootstrap(
        data, figure, paired=True, vectorized=True, n_resamples=RESAMPLES, batch=50, method="percentile", rng=seed
    )
    interval = result.confidence_interval
    return Estimate(value=float(figure(*data)), low=float(interval.low), high=float(interval.high))
