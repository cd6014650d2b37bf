"""A metric's interval against the normal approximation."""

import numpy as np
import pytest

from pipeline.measure.statistics.resamples import percentile_interval, resampled


def test_the_interval_of_a_resampled_mean_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(2).normal(5, 2, 400)
    found = percentile_interval(resampled(lambda at: float(values[at].mean()), 400))
    error = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * error, rel=0.25)
