"""A budget gives pass, fail or inconclusive; what is exact is decided exactly."""

import re
from math import sqrt
from typing import Any

import pytest

from pipeline.config import Budget
from pipeline.gate import judge, verdict
from pipeline.record import GateRecord, Measure
from pipeline.statistics import Estimate


def measured(**changes: Any) -> Measure:
    given = {"size_bytes": 1000, "payload_bytes": 900, "params": 200, "macs": 3000, "score": 0.9, "test_samples": 400}
    return Measure(**{**given, **changes})


def kept(low: float, value: float, high: float) -> Measure:
    return measured(retention=Estimate(value=value, low=low, high=high))


@pytest.mark.parametrize(
    ("key", "name", "value"), [("size", "size_bytes", 1000), ("params", "params", 200), ("macs", "macs", 3000)]
)
def test_an_exact_limit_is_kept_by_equality_and_broken_by_one(key: str, name: str, value: int) -> None:
    for limit, expected in ((value, "pass"), (value - 1, "fail"), (value + 1, "pass")):
        (gate,) = judge(Budget.model_validate({key: {"max": limit}}), measured())
        assert (gate.name, gate.value, gate.limit, gate.verdict) == (name, value, limit, expected)
        assert gate.message == f"{name} is {value:,}, the limit {limit:,}"


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.95, 0.97, 0.99), "pass"),
        ((0.949, 0.97, 0.99), "inconclusive"),
        ((0.90, 0.92, 0.95), "inconclusive"),
        ((0.90, 0.92, 0.949), "fail"),
        ((1.0, 1.0, 1.0), "pass"),
    ],
)
def test_retention_is_decided_by_its_interval(interval: tuple[float, float, float], expected: str) -> None:
    (gate,) = judge(Budget.model_validate({"retention": {"min": 0.95}}), kept(*interval))
    assert gate.verdict == expected
    assert (gate.low, gate.value, gate.high) == interval
    assert gate.message.startswith(
        f"retention is {interval[1]:.3f} [{interval[0]:.3f}, {interval[2]:.3f}], the limit 0.95"
    )


@pytest.mark.parametrize(("value", "half"), [(0.97, 0.04), (0.93, 0.05)])
def test_an_inconclusive_gate_names_the_examples_at_which_the_interval_would_touch_the_limit(
    value: float, half: float
) -> None:
    (gate,) = judge(Budget.model_validate({"retention": {"min": 0.95}}), kept(value - half, value, value + half))
    found = re.search(r"about ([\d,]+) test examples would decide, there are 400", gate.message)
    assert found
    size = int(found[1].replace(",", ""))
    assert size > 400
    assert half * sqrt(400 / size) == pytest.approx(abs(value - 0.95), rel=1e-3)


def test_a_figure_on_the_limit_is_not_decided_by_more_examples() -> None:
    (gate,) = judge(Budget.model_validate({"retention": {"min": 0.95}}), kept(0.9, 0.95, 1.0))
    assert gate.verdict == "inconclusive"
    assert "no number of examples decides" in gate.message


def test_retention_that_is_not_defined_is_inconclusive_with_its_reason() -> None:
    found = measured(retention=None, retention_reason="the baseline's mean score is 0, not above zero")
    (gate,) = judge(Budget.model_validate({"retention": {"min": 0.95}}), found)
    assert (gate.verdict, gate.value) == ("inconclusive", None)
    assert "the baseline's mean score is 0" in gate.message


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], None),
        (["pass", "pass"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["inconclusive", "fail", "pass"], "fail"),
    ],
)
def test_the_whole_is_as_good_as_its_worst_gate(verdicts: list[Any], expected: str | None) -> None:
    gates = [GateRecord(name="x", limit=1, value=1, verdict=v, message="") for v in verdicts]
    assert verdict(gates) == expected


def test_every_limit_of_a_budget_is_judged() -> None:
    limits = {"retention": {"min": 0.9}, "size": {"max": "1 kB"}, "params": {"max": 1}, "macs": {"max": 10**6}}
    gates = judge(Budget.model_validate(limits), kept(0.95, 0.97, 0.99))
    assert {g.name: g.verdict for g in gates} == {
        "retention": "pass",
        "size_bytes": "pass",
        "params": "fail",
        "macs": "pass",
    }
    assert judge(Budget(), measured()) == []
