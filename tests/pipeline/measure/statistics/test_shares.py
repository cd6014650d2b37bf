"""Intervals against exact limits, published figures, a reference implementation, and their own promise: coverage."""

from itertools import product
from math import sqrt
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from pipeline.measure.statistics.pairs import Pairs
from pipeline.measure.statistics.shares import (
    difference_ends,
    difference_interval,
    ratio_ends,
    ratio_interval,
    share_ends,
    share_interval,
)

CAVO = Pairs(both=59, gained=6, lost=16, neither=80)
Z = stats.norm.ppf(0.975)


def score_interval(table: Pairs) -> tuple[float, float]:
    """The asymptotic score interval of the ratio (Tang, Tang and Chan, Statistics in Medicine 22, 2003)."""
    both, gained, lost, _ = table
    first, second, total, seen = both + gained, both + lost, sum(table), both + gained + lost

    def statistic(ratio: float) -> float:
        a, b = total * (1 + ratio), second * ratio**2 - (both + gained + 2 * lost)
        share = (sqrt(b * b - 4 * a * lost * (1 - ratio) * seen / total) - b) / (2 * a)
        return float((first - ratio * second) / sqrt(total * (1 + ratio) * share + seen * (ratio - 1)))

    ends = [optimize.brentq(lambda r: statistic(r) - z, 0.1, 10) for z in (Z, -Z)]  # noqa: B023
    return ends[0], ends[1]


def test_the_reference_gives_its_published_interval() -> None:
    # Fagerland, Lydersen and Laake: Statistical Analysis of Contingency Tables, 2017, chapter 8.
    assert score_interval(CAVO) == pytest.approx((0.7476, 0.9876), abs=5e-5)


@pytest.mark.parametrize("scale", [1, 10, 100])
def test_ratio_interval_comes_to_the_score_interval_as_counts_grow(scale: int) -> None:
    table = Pairs(*(scale * count for count in CAVO))
    found, (low, high) = ratio_interval(table), score_interval(table)
    assert found.value == pytest.approx(65 / 75)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.015 / scale)


def test_difference_interval_comes_to_the_published_score_interval() -> None:
    # Tango, Statistics in Medicine 17, 1998, for these counts: 0.0621 [0.0054, 0.1240].
    found = difference_interval(CAVO)
    assert (found.value, found.low, found.high) == pytest.approx((0.0621, 0.0054, 0.1240), abs=0.005)


@pytest.mark.parametrize(("count", "total"), [(0, 20), (1, 20), (7, 20), (20, 20), (3, 1000)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_share_interval_is_exact(count: int, total: int, level: float) -> None:
    exact = stats.binomtest(count, total).proportion_ci(level, method="exact")
    found = share_interval(count, total, level)
    assert (found.value, found.low, found.high) == pytest.approx((count / total, exact.low, exact.high))


@pytest.mark.parametrize("lost", [0, 1, 20, 50])
def test_without_gains_the_lower_end_is_exact(lost: int) -> None:
    exact = stats.binomtest(lost, 50).proportion_ci(0.95, method="exact")
    assert ratio_interval(Pairs(50 - lost, 0, lost, 30)).low == pytest.approx(1 - exact.high)
    assert difference_interval(Pairs(20, 0, lost, 30)).high == pytest.approx(share_interval(lost, 50 + lost).high)


@pytest.mark.parametrize("size", [1, 20, 400])
def test_no_flips_is_not_certainty(size: int) -> None:
    # No loss among n has a chance of 2.5 % where the true share kept is 0.025^(1/n).
    found = ratio_interval(Pairs(size, 0, 0, 0))
    assert found.low == pytest.approx(0.025 ** (1 / size))
    assert found.high > 1
    assert difference_interval(Pairs(size, 0, 0, 0)).high == pytest.approx(1 - 0.025 ** (1 / size))


EDGES = [Pairs(0, 0, 5, 5), Pairs(0, 5, 5, 0), Pairs(0, 0, 10, 0), Pairs(3, 7, 0, 0), Pairs(1, 0, 0, 9)]


@pytest.mark.parametrize("table", EDGES)
def test_intervals_hold_their_value_at_the_edges(table: Pairs) -> None:
    for found in (ratio_interval(table), difference_interval(table)):
        assert found.low <= found.value <= found.high
        assert found.low < found.high


def test_swapping_the_models_turns_the_difference_around() -> None:
    found, swapped = difference_interval(CAVO), difference_interval(Pairs(59, 16, 6, 80))
    assert (swapped.low, swapped.value, swapped.high) == pytest.approx((-found.high, -found.value, -found.low))


def test_a_higher_level_is_wider_and_arrays_give_what_numbers_give() -> None:
    tables = [CAVO, Pairs(395, 0, 5, 0), Pairs(0, 5, 5, 0)]
    both, gained, lost, neither = np.array(tables).T
    for interval, ends in (
        (ratio_interval, ratio_ends(both, gained, lost, 0.99)),
        (difference_interval, difference_ends(both + gained + lost + neither, gained, lost, 0.99)),
    ):
        for i, table in enumerate(tables):
            usual, wide = interval(table), interval(table, 0.99)
            assert wide.low <= usual.low <= usual.high <= wide.high
            assert wide.high - wide.low > usual.high - usual.low
            assert (wide.low, wide.high) == pytest.approx((ends[0][i], ends[1][i]))


Truth = tuple[float, float, float, float]


def at_a_retention_of(limit: float, accuracy: float, gained: float) -> Truth:
    """Chances of both, gained, lost and neither with exactly this retention."""
    lost = accuracy * (1 - limit) + gained
    return accuracy - lost, gained, lost, 1 - accuracy - gained


def chances(truth: Truth, size: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Tables of pairs that are not quite impossible, and their chances: the multinomial as binomials in turn.

    Of the numbers that the baseline has right, on which little depends, some are taken, evenly.
    """
    both, _, lost, _ = truth
    rows, weights = [], []
    right = stats.binom(size, both + lost)
    for second in np.arange(right.ppf(0.02), right.ppf(0.98) + 1, max(1, size // 100)):
        of_lost, of_gained = parts(truth, size, second)
        less, more = (np.arange(d.ppf(1e-5), d.ppf(1 - 1e-5) + 1) for d in (of_lost, of_gained))
        lost_, gained_ = np.meshgrid(less, more, indexing="ij")
        rows.append(np.stack([second - lost_, gained_, lost_, size - second - gained_], -1).reshape(-1, 4))
        weights.append((right.pmf(second) * np.outer(of_lost.pmf(less), of_gained.pmf(more))).ravel())
    whole = np.concatenate(weights)
    return np.concatenate(rows), whole / whole.sum()


def parts(truth: Truth, size: int, right: float) -> tuple[Any, Any]:
    """What is lost of those that the baseline has right, and gained of the others."""
    both, gained, lost, neither = truth
    return stats.binom(right, lost / (both + lost)), stats.binom(size - right, gained / max(gained + neither, 1e-12))


CELLS = [
    *product((400,), (0.9, 0.97, 0.99, 0.998), (0.0, 0.001, 0.005, 0.02)),
    *product((2000,), (0.97, 0.99, 0.998), (0.0, 0.001, 0.005)),
    *product((50,), (0.8, 0.95), (0.0, 0.02)),
]


@pytest.mark.parametrize(("size", "limit", "gained"), CELLS)
def test_in_no_cell_an_end_passes_the_truth_more_often_than_it_may(size: int, limit: float, gained: float) -> None:
    """Exactly, by adding up chances: few losses, losses alone, losses and gains; both ends, ratio and difference."""
    truth = at_a_retention_of(limit, 0.9, gained)
    tables, weights = chances(truth, size)
    both, won, lost, _ = tables.T
    for (low, high), at in (
        (ratio_ends(both, won, lost), limit),
        (difference_ends(size, won, lost), truth[2] - truth[1]),
        (share_ends(lost, size), truth[2]),
    ):
        assert weights[low > at].sum() <= 0.025
        assert weights[high < at].sum() <= 0.025


@pytest.mark.parametrize("size", [60, 200])
def test_where_nearly_all_examples_flip_losses_and_gains_exclude_each_other(size: int) -> None:
    """The two counts are correlated then; taken for independent, ends would pass the truth twice as often."""
    tables, weights = chances((0.06, 0.44, 0.48, 0.02), size)
    low, high = difference_ends(size, tables[:, 1], tables[:, 2])
    assert weights[low > 0.04].sum() <= 0.025
    assert weights[high < 0.04].sum() <= 0.025
