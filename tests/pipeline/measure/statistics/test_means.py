"""Mean scores that are compared: in pairs, and not where a ratio means nothing."""

import numpy as np
import pytest

from pipeline.measure.statistics.means import drop, retention


def test_a_baseline_that_is_nearly_all_zero_has_no_retention() -> None:
    scores = np.zeros(50)
    scores[0] = 0.3
    assert retention(np.full(50, 0.1), scores) is None
    assert retention(scores, np.full(50, 0.1)) is not None


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
