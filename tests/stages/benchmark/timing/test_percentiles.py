import numpy as np
import pytest
from scipy import stats

from stages.benchmark.timing.percentiles import Method, fewest, median_interval, over, percentiles

RNG = np.random.default_rng(0)
SHARES = {"p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999}


def test_percentiles_are_numpys() -> None:
    samples = RNG.lognormal(size=10_000).tolist()
    values, reasons = percentiles(samples)
    expected = np.percentile(samples, [50, 90, 99, 99.9])
    assert list(values.values()) == pytest.approx(expected.tolist())
    assert reasons == {}


@pytest.mark.parametrize(("method", "count", "null"), [
    ("interpolated", 19, ["p50_ms", "p90_ms", "p99_ms", "p999_ms"]),
    ("interpolated", 20, ["p90_ms", "p99_ms", "p999_ms"]),
    ("interpolated", 100, ["p99_ms", "p999_ms"]),
    ("interpolated", 999, ["p99_ms", "p999_ms"]),
    ("interpolated", 1000, ["p999_ms"]),
    ("interpolated", 9999, ["p999_ms"]),
    ("early stopping", 19, ["p50_ms", "p90_ms", "p99_ms", "p999_ms"]),
    ("early stopping", 63, ["p90_ms", "p99_ms", "p999_ms"]),
    ("early stopping", 64, ["p99_ms", "p999_ms"]),
    ("early stopping", 661, ["p99_ms", "p999_ms"]),
    ("early stopping", 662, ["p999_ms"]),
    ("early stopping", 6635, ["p999_ms"]),
    ("early stopping", 6636, []),
])  # fmt: skip
def test_a_percentile_of_too_few_samples_is_null_with_a_reason(method: Method, count: int, null: list[str]) -> None:
    values, reasons = percentiles([1.0] * count, method)
    assert [name for name, value in values.items() if value is None] == null == list(reasons)
    assert all(str(count) in reason for reason in reasons.values())


def test_the_fewest_samples_are_those_that_mlperf_asks_for() -> None:
    assert [fewest(share) for share in (0.9, 0.99)] == [64, 662]


@pytest.mark.parametrize("share", SHARES.values())
@pytest.mark.parametrize("count", [64, 100, 662, 1000, 6636, 24_576, 270_336])
def test_early_stopping_is_the_binomial_distributions(share: float, count: int) -> None:
    # At most t of the samples over the percentile in 1 of 100 cases, and t + 1 in more.
    place = over(count, share)
    assert place < 0 or stats.binom.cdf(place, count, 1 - share) <= 0.01
    assert stats.binom.cdf(place + 1, count, 1 - share) > 0.01


def test_the_figure_by_early_stopping_is_the_largest_but_so_many() -> None:
    samples = RNG.permutation(np.arange(1.0, 1025)).tolist()
    values, _ = percentiles(samples, "early stopping")
    # Of 1,024 samples the rules would discard the 79 largest for p90, and 2 for p99.
    assert values == {"p50_ms": 512.5, "p90_ms": 1024 - 79, "p99_ms": 1024 - 2, "p999_ms": None}


@pytest.mark.parametrize(("name", "count"), [("p90_ms", 64), ("p90_ms", 300), ("p99_ms", 662)])
def test_early_stopping_is_under_the_true_percentile_in_1_of_100_cases_at_most(name: str, count: int) -> None:
    true = stats.lognorm.ppf(SHARES[name], 1)
    trials = np.sort(RNG.lognormal(size=(2000, count)))[:, -over(count, SHARES[name])]
    assert np.mean(trials < true) <= 0.015


def test_the_interval_of_a_median_holds_the_true_one_in_95_of_100_cases() -> None:
    trials = [median_interval(RNG.lognormal(size=10).tolist()) for _ in range(1000)]
    held = np.mean([found["low"] <= 1 <= found["high"] for found in trials])  # type: ignore[operator]
    assert held > 0.96  # of ten values, 97.9 %: fewer may not be left out
    assert median_interval(list(range(10))) == {"value": 4.5, "low": 1, "high": 8}


@pytest.mark.parametrize(("count", "low"), [(1, None), (5, None), (6, 0), (8, 0), (9, 1), (20, 5)])
def test_the_interval_of_a_median_is_of_order_statistics(count: int, low: int | None) -> None:
    # The table of, for example, Conover's "Practical Nonparametric Statistics": ranks 1 for 6, 2 for 9, 6 for 20.
    expected = (low, None if low is None else count - 1 - low)
    found = median_interval(list(range(count)))
    assert (found["low"], found["high"]) == expected
