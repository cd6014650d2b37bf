"""Intervals against published figures, closed forms, scipy, and their own promise: coverage."""

import numpy as np
import pytest
from scipy import stats

from pipeline.statistics import (
    Pairs,
    difference_interval,
    drop,
    mcnemar_p,
    metric_interval,
    pairs,
    ratio_interval,
    retention,
    samples_needed,
)

CAVO = Pairs(both=59, gained=6, lost=16, neither=80)
BENTUR = Pairs(both=1, gained=1, lost=7, neither=12)


@pytest.mark.parametrize(("table", "expected"), [(CAVO, (0.8667, 0.7476, 0.9876)), (BENTUR, (0.25, 0.0653, 0.9069))])
def test_ratio_interval_gives_the_published_tang_score_intervals(table: Pairs, expected: tuple[float, ...]) -> None:
    # Fagerland, Lydersen and Laake 2017, chapter 8, and its R package contingencytables.
    found = ratio_interval(table)
    assert (found.value, found.low, found.high) == pytest.approx(expected, abs=5e-5)


def test_difference_interval_gives_the_published_tango_interval() -> None:
    found = difference_interval(CAVO)
    assert (found.value, found.low, found.high) == pytest.approx((0.0621, 0.0054, 0.1240), abs=5e-5)


def test_mcnemar_gives_the_published_exact_p() -> None:
    assert mcnemar_p(CAVO) == pytest.approx(0.052479, abs=5e-7)
    assert mcnemar_p(Pairs(10, 0, 0, 0)) == 1.0


@pytest.mark.parametrize("size", [1, 20, 400])
def test_no_flips_is_not_certainty(size: int) -> None:
    # With no flips the test statistic is sqrt(n (1 - r) / r), so the lower end is n / (n + z^2).
    found = ratio_interval(Pairs(size, 0, 0, 0))
    z2 = stats.norm.ppf(0.975) ** 2
    assert found.low == pytest.approx(size / (size + z2), rel=1e-5)
    assert found.high == pytest.approx((size + z2) / size, rel=1e-5)
    assert difference_interval(Pairs(size, 0, 0, 0)).low < 0 < difference_interval(Pairs(size, 0, 0, 0)).high


EDGES = [Pairs(0, 0, 5, 5), Pairs(0, 5, 5, 0), Pairs(0, 0, 10, 0), Pairs(3, 7, 0, 0), Pairs(1, 0, 0, 9)]


@pytest.mark.parametrize("table", EDGES)
def test_intervals_hold_their_value_at_the_edges(table: Pairs) -> None:
    for found in (ratio_interval(table), difference_interval(table)):
        assert found.low <= found.value <= found.high
        assert found.low < found.high


def test_swapping_the_models_inverts_the_ratio() -> None:
    swapped = ratio_interval(Pairs(CAVO.both, CAVO.lost, CAVO.gained, CAVO.neither))
    found = ratio_interval(CAVO)
    assert swapped.low == pytest.approx(1 / found.high, rel=1e-4)
    assert swapped.high == pytest.approx(1 / found.low, rel=1e-4)


def test_ratio_interval_covers_the_truth_in_95_percent_of_draws() -> None:
    draw = np.random.default_rng(0)
    chances = [0.85, 0.03, 0.06, 0.06]
    truth = (chances[0] + chances[1]) / (chances[0] + chances[2])
    tables = [ratio_interval(Pairs(*row)) for row in draw.multinomial(400, chances, size=1000)]
    covered = np.mean([t.low <= truth <= t.high for t in tables])
    assert 0.93 < covered < 0.97


def test_pairs_counts_each_cell() -> None:
    model, baseline = np.array([1, 1, 1, 0, 0, 0.0]), np.array([1, 1, 0, 1, 0, 0.0])
    assert pairs(model, baseline) == Pairs(both=2, gained=1, lost=1, neither=2)


def test_retention_of_graded_scores_is_a_paired_bootstrap() -> None:
    draw = np.random.default_rng(1)
    baseline = draw.uniform(0.5, 1.0, 500)
    paired = retention(baseline * 0.9, baseline)
    assert paired is not None
    # A model at exactly 0.9 of each score has no doubt about its ratio; unpaired it would.
    assert (paired.low, paired.value, paired.high) == pytest.approx((0.9, 0.9, 0.9))
    noisy = retention(baseline * 0.9 + draw.normal(0, 0.1, 500), baseline)
    assert noisy is not None
    assert noisy.low < noisy.value < noisy.high


def test_retention_means_nothing_where_the_baseline_is_not_above_zero() -> None:
    assert retention(np.array([-1.0, -2.0]), np.array([-1.0, -1.0])) is None
    assert drop(np.array([-1.0, -2.0]), np.array([-1.0, -1.0])).value == pytest.approx(0.5)


def test_metric_interval_of_a_mean_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(2).normal(5, 2, 400)
    found = metric_interval(lambda at: float(values[at].mean()), 400)
    error = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * error, rel=0.25)


def test_samples_needed_is_the_size_at_which_the_interval_clears_the_limit() -> None:
    for limit in (0.95, 0.98):
        size = samples_needed(limit)
        moved = round(0.025 * size)
        both = round(0.95 * size) - moved
        assert ratio_interval(Pairs(both, moved, moved, size - both - 2 * moved)).low >= limit
    assert samples_needed(0.98) > 3 * samples_needed(0.95)
