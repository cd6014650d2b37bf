"""Intervals against exact limits, published figures, a reference implementation, and their own promise: coverage."""

from itertools import product
from math import sqrt
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from pipeline.base.estimate import Estimate
from pipeline.measure.statistics import (
    Decided,
    Pairs,
    difference_ends,
    difference_interval,
    drop,
    kept,
    mcnemar_p,
    pairs,
    percentile_interval,
    ratio_ends,
    ratio_interval,
    resampled,
    retention,
    samples_by_reach,
    samples_needed,
    samples_to_decide,
    share_ends,
    share_interval,
    undropped,
    unlost,
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


def test_a_baseline_that_is_nearly_all_zero_has_no_retention() -> None:
    scores = np.zeros(50)
    scores[0] = 0.3
    assert retention(np.full(50, 0.1), scores) is None
    assert retention(scores, np.full(50, 0.1)) is not None


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


def test_mcnemar_gives_the_published_exact_p() -> None:
    assert mcnemar_p(CAVO) == pytest.approx(0.052479, abs=5e-7)
    assert mcnemar_p(Pairs(10, 0, 0, 0)) == 1.0


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (1, 1), (2, 3), (7, 0), (13, 29), (400, 350), (30, 31)])
def test_mcnemar_is_the_exact_binomial_test_of_a_fair_coin(gained: int, lost: int) -> None:
    expected = stats.binomtest(lost, gained + lost, 0.5).pvalue
    assert mcnemar_p(Pairs(50, gained, lost, 3)) == pytest.approx(expected, rel=1e-12)


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


def test_pairs_counts_each_cell() -> None:
    model, baseline = np.array([1, 1, 1, 0, 0, 0.0]), np.array([1, 1, 0, 1, 0, 0.0])
    assert pairs(model, baseline) == Pairs(both=2, gained=1, lost=1, neither=2)


def test_retention_of_graded_scores_is_a_paired_bootstrap() -> None:
    draw = np.random.default_rng(1)
    baseline = draw.uniform(0.5, 1.0, 500)
    paired = retention(baseline * 0.9, baseline)
    # A model at exactly 0.9 of each score has no doubt about its ratio; unpaired it would.
    assert (paired.low, paired.value, paired.high) == pytest.approx((0.9, 0.9, 0.9))
    noisy = retention(baseline * 0.9 + draw.normal(0, 0.1, 500), baseline)
    assert noisy.low < noisy.value < noisy.high


def test_retention_means_nothing_where_the_baseline_is_not_above_zero() -> None:
    assert retention(np.array([-1.0, -2.0]), np.array([-1.0, -1.0])) is None
    assert drop(np.array([-1.0, -2.0]), np.array([-1.0, -1.0])).value == pytest.approx(0.5)


def test_the_interval_of_a_resampled_mean_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(2).normal(5, 2, 400)
    found = percentile_interval(resampled(lambda at: float(values[at].mean()), 400))
    error = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * error, rel=0.25)


@pytest.mark.parametrize("size", [60, 200])
def test_where_nearly_all_examples_flip_losses_and_gains_exclude_each_other(size: int) -> None:
    """The two counts are correlated then; taken for independent, ends would pass the truth twice as often."""
    tables, weights = chances((0.06, 0.44, 0.48, 0.02), size)
    low, high = difference_ends(size, tables[:, 1], tables[:, 2])
    assert weights[low > 0.04].sum() <= 0.025
    assert weights[high < 0.04].sum() <= 0.025


LIKE: list[tuple[Truth, float, Decided]] = [
    ((0.90, 0.00, 0.00, 0.10), 0.98, kept),
    ((0.899, 0.00, 0.001, 0.10), 0.98, kept),
    ((0.88, 0.01, 0.02, 0.09), 0.97, kept),
    ((0.88, 0.02, 0.02, 0.08), 0.99, kept),
    ((0.88, 0.01, 0.05, 0.06), 0.98, kept),  # fails
    ((0.895, 0.00, 0.005, 0.10), 0.9985, kept),  # fails
    ((0.899, 0.00, 0.001, 0.10), -0.01, undropped),
    ((0.88, 0.01, 0.02, 0.09), -0.03, undropped),
    ((0.88, 0.01, 0.05, 0.06), -0.02, undropped),  # fails
    ((0.88, 0.01, 0.01, 0.10), -0.03, unlost),
    ((0.90, 0.00, 0.00, 0.10), -0.01, unlost),
    ((0.85, 0.01, 0.05, 0.09), -0.03, unlost),  # fails
]


@pytest.mark.parametrize(("truth", "limit", "figure"), LIKE)
def test_at_the_promised_number_of_samples_nine_of_ten_are_decided(truth: Truth, limit: float, figure: Decided) -> None:
    size = samples_to_decide(truth, limit, figure)
    assert size
    draws, counts = np.unique(np.random.default_rng(0).multinomial(size, truth, size=4000), axis=0, return_counts=True)
    found = [figure(row) for row in draws.astype(float)]
    passes = figure(np.array(truth) * size).value > limit
    decided = np.array([f.low >= limit if passes else f.high < limit for f in found])
    assert counts[decided].sum() / 4000 >= 0.9 - 2 * sqrt(0.9 * 0.1 / 4000)


@pytest.mark.parametrize(("truth", "limit", "figure"), LIKE)
def test_no_more_samples_are_asked_for_than_it_takes(truth: Truth, limit: float, figure: Decided) -> None:
    """With two fifths of the promised number no more than nine of ten are decided, but where nothing is ever lost."""
    size = samples_to_decide(truth, limit, figure)
    assert size
    draws = np.random.default_rng(0).multinomial(size * 2 // 5, truth, size=1000).astype(float)
    passes = figure(np.array(truth) * size).value > limit
    decided = [f.low >= limit if passes else f.high < limit for f in map(figure, draws)]
    assert np.mean(decided) < 0.9 or truth[2] == 0


def test_samples_to_decide_follow_the_normal_approximation_where_counts_are_large() -> None:
    """(z 0.975 + z 0.9)^2 times the variance of an example over the squared margin."""
    _, gained, lost, _ = truth = (0.80, 0.04, 0.06, 0.10)
    limit, ratio = 0.97, 0.84 / 0.86
    variance = (gained + lost - (1 - ratio) ** 2 * 0.86) / 0.86**2  # of 1 - l + g, to first order
    expected = (Z + stats.norm.ppf(0.9)) ** 2 * variance / (ratio - limit) ** 2
    assert samples_to_decide(truth, limit, kept) == pytest.approx(expected, rel=0.05)


def test_more_power_and_a_higher_level_take_more_samples() -> None:
    like = (0.88, 0.01, 0.02, 0.09)
    usual = samples_to_decide(like, 0.97, kept)
    assert usual
    assert (samples_to_decide(like, 0.97, kept, power=0.99) or 0) > usual
    assert (samples_to_decide(like, 0.97, kept, level=0.999) or 0) > usual
    assert samples_to_decide([1000 * share for share in like], 0.97, kept) == usual


def test_no_number_of_samples_decides_a_figure_at_its_limit() -> None:
    assert samples_to_decide((0.9, 0.0, 0.1, 0.0), 0.9, kept) is None
    assert samples_by_reach(Estimate(value=0.9, low=0.8, high=1.0), 0.9, 100) is None


def test_samples_needed_let_a_model_as_good_as_its_baseline_pass_in_nine_of_ten_cases() -> None:
    for limit, accuracy, flips in ((0.95, 0.95, 0.05), (0.98, 0.95, 0.05), (0.99, 0.8, 0.02)):
        size = samples_needed(limit, accuracy, flips)
        truth = (accuracy - flips / 2, flips / 2, flips / 2, 1 - accuracy - flips / 2)
        both, gained, lost, _ = np.random.default_rng(1).multinomial(size, truth, size=4000).T
        assert (ratio_ends(both, gained, lost)[0] >= limit).mean() >= 0.9 - 2 * sqrt(0.9 * 0.1 / 4000)
    assert samples_needed(0.98) > 3 * samples_needed(0.95)
