"""A budget is taken as people write it where that has one meaning, and else answered with the right key."""

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.build.syntax.validate import validate
from pipeline.errors import ConfigError
from pipeline.gate.budget import Budget


def read(budget: dict[str, Any]) -> Budget:
    return validate(Budget, budget, None, ("budget",), Path())


@pytest.mark.parametrize(("short", "whole"), [
    ({"retention": "98 %"}, {"retention": {"min": 0.98}}),
    ({"retention": {"min": "97.5%", "of": "expected"}}, {"retention": {"min": 0.975, "of": "expected"}}),
    ({"score": "90 %"}, {"score": {"min": 0.9}}),
    ({"score": -0.3}, {"score": {"min": -0.3}}),
    ({"worst_class": 0.9}, {"worst_class": {"min": 0.9}}),
    ({"drop": 0.01, "flips": 0.02}, {"drop": {"max": 0.01}, "flips": {"max": 0.02}}),
    ({"size": "40 kB", "params": 1000}, {"size": {"max": 40_000}, "params": {"max": 1000}}),
    ({"latency": "5 ms", "memory": "60 MB"}, {"latency": {"max": "5 ms"}, "memory": [{"max": 60_000_000}]}),
])  # fmt: skip
def test_a_figure_stands_for_its_limit(short: dict[str, Any], whole: dict[str, Any]) -> None:
    assert read(short) == read(whole)


@pytest.mark.parametrize(("budget", "message"), [
    ({"retention": "120 %"}, "`retention` is '120 %'; expected less than or equal to 1"),
    ({"retention": 98}, "`retention` is 98"),
    ({"retention": "0.97"}, "expected a number, without quotes"),
    ({"retention": True}, "expected a mapping"),
    ({"drop": "1 %"}, "`drop` is '1 %'"),  # of the score, or points of it?
    ({"accuracy": {"min": 0.9}}, "there is no key `accuracy`: `score: {min: 0.9}` of a budget is of the score itself"),
    ({"score": {"min": float("nan")}}, "`min` is nan; expected a finite number"),
    ({"score": "high"}, "`score` is 'high'"),
    ({"speedup": 2}, "there is no key `speedup`: `latency: {max: 0.5}`"),
])  # fmt: skip
def test_what_has_no_one_meaning_is_told(budget: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        read(budget)
