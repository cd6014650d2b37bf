"""Figures and names as text."""

import pytest

from pipeline.report.html.text import (
    count_of,
    duration_text,
    joined,
    label,
    number,
    numbers,
    settings_table,
    times_text,
)


def test_names_in_figures_are_text(hostile: str) -> None:
    assert label(hostile, 200).startswith("&lt;script&gt;")
    assert label("a" * 50) == "a" * 13 + "…" + "a" * 13


@pytest.mark.parametrize(("text", "expected"), [
    (times_text(78.72), "78.7 times smaller"),
    (times_text(0.5), "2.00 times larger"),
    (times_text(1.0), "the same"),
    (duration_text(12.34), "12.3 s"),
    (duration_text(250), "4 min 10 s"),
    (duration_text(7500), "2 h 05 min"),
    (duration_text(None), "-"),
    (count_of(1, "limit"), "1 limit"),
    (count_of(1200, "epoch"), "1,200 epochs"),
    (joined(["a", "b", "c"]), "a, b and c"),
    (joined([]), ""),
])  # fmt: skip
def test_words(text: str, expected: str) -> None:
    assert text == expected


def test_only_finite_numbers_are_numbers() -> None:
    assert [number(v) for v in (1, 2.5, True, "3", None, float("nan"), float("inf"))] == [1.0, 2.5] + [None] * 5
    assert numbers([1, 2]) == [1.0, 2.0]
    assert numbers([1, "x"]) == numbers("12") == numbers(None) == []


def test_long_settings_are_cut_and_said_to_be() -> None:
    table = settings_table("Settings", {str(i): "x" * 1000 for i in range(100)}, most=10)
    assert (len(table.rows), table.rows[-1]) == (11, ["…", "90 more in record.json"])
    assert len(str(table.rows[0][1])) == 401
