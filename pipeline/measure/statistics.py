"""The doubt beside a number: intervals and tests for two models scored on the same examples.

For right-or-wrong scores everything comes from the 2x2 table of pairs: both right, only the first, only the second,
neither. Their intervals are put together from exact limits of single shares: they have width even where no example
flipped, and in no cell that `benchmarks/gates.py` looks at does an end pass the truth more often than it may.
"""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

from pipeline.base.estimate import Estimate

Scores = NDArray[np.float64]
Numbers = Scores | float

LEVEL = 0.95
POWER = 0.9
RESAMPLES = 2000
LARGE, MOST_SAMPLES = 10**5, 10**8


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

    None where the baseline's mean is not above zero or a score is below it, and where so few of its scores are above
    zero that a resample has none of them: a ratio means nothing there.
    """
    if baseline.mean() <= 0 or min(model.min(), baseline.min()) < 0:
        return None
    if is_right_or_wrong(model, baseline):
        return ratio_interval(pairs(model, baseline))
    with np.errstate(divide="ignore", invalid="ignore"):
        limits = _limits(lambda a, b, axis=-1: a.mean(axis) / b.mean(axis), (model, baseline), seed)
    return Estimate(**limits) if np.isfinite(list(limits.values())).all() else None


def drop(model: Scores, baseline: Scores, seed: int = 0) -> Estimate:
    """Mean score of the baseline minus that of the model, with a paired 95 % interval; below zero is a gain."""
    if is_right_or_wrong(model, baseline):
        return difference_interval(pairs(model, baseline))
    return Estimate(**_limits(lambda a, b, axis=-1: (b - a).mean(axis), (model, baseline), seed))


def share_ends(count: Numbers, total: Numbers, level: float = LEVEL) -> tuple[Scores, Scores]:
    """Exact limits of a share, below and above; each is passed by the truth with a chance of (1 - level) / 2 at most.

    Args:
        count: of total, as whole numbers or as those that are expected; numbers or arrays.
        total: above 0.
        level: of the interval.

    Reference:
        Clopper and Pearson: The use of confidence or fiducial limits illustrated in the case of the binomial,
        Biometrika 26, 1934.
    """
    tail, x, rest = (1 - level) / 2, np.asarray(count, float), np.asarray(np.subtract(total, count), float)
    low = np.where(x > 0, scipy.special.betaincinv(np.maximum(x, 1e-300), rest + 1, tail), 0.0)
    high = np.where(rest > 0, scipy.special.betaincinv(x + 1, np.maximum(rest, 1e-300), 1 - tail), 1.0)
    return low, high


def ratio_ends(both: Numbers, gained: Numbers, lost: Numbers, level: float = LEVEL) -> tuple[Scores, Scores]:
    """Limits of the ratio of two paired proportions, from counts that are numbers or arrays.

    The ratio is 1 - l + g: l is the share lost of what the baseline has right, g is gained over the same. The two
    are not correlated, whatever the model is, so that each end is put together from the exact limits of l and of g by
    the root of the sum of squares.

    Reference:
        Zou and Donner: Construction of confidence limits about effect measures: a general approach, Statistics in
        Medicine 27, 2008; here with exact limits of the parts.
    """
    right = np.add(both, lost)
    share, odds = np.divide(lost, right), np.divide(gained, right)
    least, most = share_ends(lost, right, level)
    # Of those that one model alone or the baseline has right: g / (1 + g) is a share.
    fewest, many = (end / np.maximum(1 - end, 1e-300) for end in share_ends(gained, np.add(right, gained), level))
    value = 1 - share + odds
    low = np.maximum(value - np.hypot(most - share, odds - fewest), 0.0)
    return low, value + np.hypot(share - least, many - odds)


def difference_ends(total: Numbers, gained: Numbers, lost: Numbers, level: float = LEVEL) -> tuple[Scores, Scores]:
    """Limits of the difference of two paired proportions, baseline minus model; numbers or arrays.

    It is the share lost minus the share gained, put together like `ratio_ends`; these two are correlated.

    Reference:
        Newcombe: Improved confidence intervals for the difference between binomial proportions based on paired data,
        Statistics in Medicine 17, 1998, method 10; here with exact limits and the correlation of the two counts.
    """
    p, q = np.divide(lost, total), np.divide(gained, total)
    least, most = share_ends(lost, total, level)
    fewest, many = share_ends(gained, total, level)
    against = p * q / np.maximum((1 - p) * (1 - q), 1e-300)
    together = np.sqrt(np.minimum(against, 1.0))  # minus the correlation of the two counts
    value = p - q

    def reach(a: Scores, b: Scores) -> Any:
        return np.sqrt(a * a + b * b + 2 * together * a * b)

    low, high = value - reach(p - least, many - q), value + reach(most - p, q - fewest)
    return np.maximum(low, -1.0), np.minimum(high, 1.0)


def ratio_interval(table: Pairs, level: float = LEVEL) -> Estimate:
    """Ratio of two paired proportions, model over baseline; see `ratio_ends`."""
    low, high = ratio_ends(table.both, table.gained, table.lost, level)
    return Estimate(value=(table.both + table.gained) / (table.both + table.lost), low=float(low), high=float(high))


def difference_interval(table: Pairs, level: float = LEVEL) -> Estimate:
    """Difference of two paired proportions, baseline minus model; see `difference_ends`."""
    total = sum(table)
    low, high = difference_ends(total, table.gained, table.lost, level)
    return Estimate(value=(table.lost - table.gained) / total, low=float(low), high=float(high))


def share_interval(count: float, total: float, level: float = LEVEL) -> Estimate:
    """A share with its exact interval; see `share_ends`."""
    low, high = share_ends(count, total, level)
    return Estimate(value=count / total, low=float(low), high=float(high))


def mcnemar_p(table: Pairs) -> float:
    """Exact conditional McNemar test, two-sided: could the flips be a fair coin? (McNemar 1947)."""
    flips = table.gained + table.lost
    # What `stats.binomtest` gives for a fair coin; importing scipy.stats takes longer than all that a stored run does.
    return min(1.0, 2 * float(scipy.special.bdtr(min(table.gained, table.lost), flips, 0.5)))


def resampled(metric: Callable[[NDArray[np.intp]], float], size: int, *, count: int = 200, seed: int = 0) -> Scores:
    """A metric of all examples, and then of resamples of them: (1 + count,).

    The draw is the same for all models on the same split: element by element these compare them in pairs.

    Args:
        metric: gives the figure for the examples at these positions.
        size: number of examples.
        count: of resamples.
        seed: of the draw.

    Reference:
        Koehn: Statistical significance tests for machine translation evaluation, 2004.
    """
    draw = np.random.default_rng(seed)
    return np.array([metric(np.arange(size)), *(metric(draw.integers(0, size, size)) for _ in range(count))])


def percentile_interval(values: Scores) -> Estimate:
    """The first value, with the 95 % interval of the others; a resample that is NaN is left out."""
    low, high = np.nanpercentile(values[1:], [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2])
    return Estimate(value=float(values[0]), low=float(low), high=float(high))


def metric_drop(model: Scores, baseline: Scores) -> Estimate:
    """A metric of the baseline minus that of the model, in pairs; each is of `resampled`. Below zero is a gain."""
    return percentile_interval(baseline - model)


def metric_retention(model: Scores, baseline: Scores) -> Estimate | None:
    """A metric of the model over that of the baseline, in pairs; each is of `resampled`.

    None where the baseline's is not above zero in all resamples: a ratio means nothing there.
    """
    return percentile_interval(model / baseline) if np.nanmin(baseline) > 0 else None


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


def _limits(figure: Callable[..., Scores], data: tuple[Scores, ...], seed: int) -> dict[str, float]:
    """Percentile bootstrap over examples, drawn in pairs (Efron 1979)."""
    result = scipy.stats.bootstrap(
        data, figure, paired=True, vectorized=True, n_resamples=RESAMPLES, batch=50, method="percentile", rng=seed
    )
    interval = result.confidence_interval
    return {"value": float(figure(*data)), "low": float(interval.low), "high": float(interval.high)}
