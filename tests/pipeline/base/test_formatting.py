"""Numbers and names as people read them."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.base.estimate import Estimate
from pipeline.base.formatting import bytes_text, count_text, difference_text, few, interval_text, shown


def test_a_path_is_told_from_here_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "runs" / "a") == Path("runs/a")
    assert shown(tmp_path.parent) == tmp_path.parent


@pytest.mark.parametrize(
    ("count", "in_bytes", "in_units"),
    [(0, "0 B", "0"), (999, "999 B", "999"), (1234, "1.2 kB", "1.2 k"), (14_195_200, "14.2 MB", "14.2 M"),
     (2_500_000_000, "2.5 GB", "2.5 G"), (3_000_000_000_000, "3000.0 GB", "3.0 T")],
)  # fmt: skip
def test_counts_are_told_in_thousands(count: int, in_bytes: str, in_units: str) -> None:
    assert (bytes_text(count), count_text(count)) == (in_bytes, in_units)


@pytest.mark.parametrize(("estimate", "digits", "expected"), [
    (Estimate(value=0.9874, low=0.97, high=1.0011), 3, "0.987 [0.970, 1.001]"),
    ({"value": 0.5, "low": 0.25, "high": 0.75}, 2, "0.50 [0.25, 0.75]"),
    ({"value": 0.5, "low": None, "high": None}, 2, "0.50"),
    ({"value": None}, 3, "-"),
    (None, 3, "-"),
])  # fmt: skip
def test_an_interval_stands_beside_its_value_where_there_is_one(estimate: Any, digits: int, expected: str) -> None:
    assert interval_text(estimate, digits) == expected


@pytest.mark.parametrize(("shares", "sign", "expected"), [
    (True, "", "1.2 points [-0.4, 2.8]"),
    (True, "+", "+1.2 points [-0.4, 2.8]"),
    (False, "+", "+0.01234 of score [-0.004, 0.02845]"),
])  # fmt: skip
def test_a_difference_of_shares_is_in_points(shares: bool, sign: str, expected: str) -> None:
    difference = Estimate(value=0.01234, low=-0.004, high=0.02845)
    assert difference_text(difference, shares=shares, sign=sign) == expected
    assert -difference == Estimate(value=-0.01234, low=-0.02845, high=0.004)
    assert difference_text(Estimate(value=-1e-9, low=-1e-9, high=0), shares=True) == "0.0 points [0.0, 0.0]"


def test_of_many_names_the_first_few_are_told_and_how_many_more_there_are() -> None:
    assert few(["a", "b"]) == "a, b"
    assert few([str(i) for i in range(1205)], 5) == "0, 1, 2, 3, 4 and 1,200 more"
