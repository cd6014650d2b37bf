from math import exp, log

import numpy as np
import pytest
from scipy import stats

from pipeline.measure.statistics.ratios import Ratio, compare, interval, judge

RNG = np.random.default_rng(0)


def test_interval_is_students() -> None:
    logs = RNG.normal(-0.3, 0.05, 7)
    found = interval(logs.tolist())
    expected = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    assert (log(found.low), log(found.high)) == pytest.approx((expected.low, expected.high))  # type: ignore[arg-type]
    assert found.value == pytest.approx(stats.gmean(np.exp(logs)))


def test_interval_covers_the_truth_in_95_of_100_cases() -> None:
    found = [interval(RNG.normal(log(0.8), 0.1, 5).tolist()) for _ in range(2000)]
    covered = np.mean([r.low <= 0.8 <= r.high for r in found])  # type: ignore[operator]
    assert 0.93 < covered < 0.97


def test_two_rounds_give_no_interval_and_no_verdict() -> None:
    ratio, noise = compare([1.0, 1.0], [2.0, 2.0], [2.0, 2.0])
    assert (ratio.value, ratio.low, ratio.high) == (pytest.approx(0.5), None, None)
    assert judge(ratio, noise) == "inconclusive"


def test_compare_takes_the_geometric_mean_of_both_baselines() -> None:
    ratio, noise = compare([3.0] * 3, [2.0] * 3, [8.0] * 3)
    assert ratio.value == pytest.approx(3 / 4)
    assert noise.value == pytest.approx(4)


def test_compare_is_symmetric() -> None:
    model, baseline = RNG.uniform(1, 2, 5).tolist(), RNG.uniform(1, 2, 5).tolist()
    one, _ = compare(model, baseline, baseline)
    other, _ = compare(baseline, model, model)
    assert one.value == pytest.approx(1 / other.value)
    assert one.low == pytest.approx(1 / other.high)  # type: ignore[operator]


@pytest.mark.parametrize(("ratio", "noise", "verdict"), [
    ((0.5, 0.6), (0.98, 1.02), "faster"),
    ((1.5, 1.6), (0.98, 1.02), "slower"),
    ((0.90, 0.97), (0.90, 1.02), "inconclusive"),  # below 1, and not below the noise
    ((0.90, 0.97), (0.99, 1.10), "inconclusive"),  # noise counts on both sides of 1
    ((0.97, 1.03), (0.98, 1.02), "same"),
    ((0.97, 1.03), (0.50, 2.00), "same"),
    ((0.80, 1.20), (0.98, 1.02), "inconclusive"),
])  # fmt: skip
def test_verdicts(ratio: tuple[float, float], noise: tuple[float, float], verdict: str) -> None:
    assert judge(Ratio(exp((log(ratio[0]) + log(ratio[1])) / 2), *ratio), Ratio(1.0, *noise)) == verdict
