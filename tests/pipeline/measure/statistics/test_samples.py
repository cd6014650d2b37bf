"""The promised numbers of examples against draws: enough, and no more than it takes."""

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from pipeline.base.estimate import Estimate
from pipeline.measure.statistics.samples import (
    Decided,
    kept,
    samples_by_reach,
    samples_needed,
    samples_to_decide,
    undropped,
    unlost,
)
from pipeline.measure.statistics.shares import ratio_ends

Truth = tuple[float, float, float, float]

Z = stats.norm.ppf(0.975)
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
