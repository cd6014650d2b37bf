"""Intervals of shares, and of the ratio and the difference of two shares that are paired.

All come from the 2x2 table of pairs: both right, only the first, only the second, neither. They are put together from
exact limits of single shares: they have width even where no example flipped, and in no cell that `benchmarks/gates.py`
looks at does an end pass the truth more often than it may.
"""

from typing import Any

import numpy as np
import scipy

from pipeline.base.estimate import Estimate
from pipeline.measure.statistics.pairs import Pairs, Scores

Numbers = Scores | float
LEVEL = 0.95


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
