"""The front of a comparison: its points, its axes and its table."""

import pytest

from pipeline.report.html.front import front
from tests.aliases import Make


def traces(figure: dict[str, object]) -> dict[str, dict[str, object]]:
    return {trace["meta"]: trace for trace in figure["data"] if "meta" in trace}  # type: ignore[attr-defined]


def test_every_strategy_is_a_named_point_with_its_interval(comparison: Make) -> None:
    figure = front(comparison())[0]
    assert [plot.name for plot in figure.plots] == ["size and retention", "size and latency", "latency and retention"]
    found = traces(figure.plots[0].figure)
    assert {name: trace["text"] for name, trace in found.items()} == {
        "baseline": ["baseline"],
        "dominated": ["prune"],
        "on the front": ["quantize", "distill"],
        "chosen": ["distill + quantize"],
    }
    chosen = found["chosen"]
    assert chosen["y"] == [0.985]
    assert chosen["error_y"]["array"] == pytest.approx([0.009])  # type: ignore[index]
    assert found["dominated"]["marker"]["color"] == "var(--surface)"  # type: ignore[index]  # hollow


def test_latency_has_an_interval_across(comparison: Make) -> None:
    found = traces(front(comparison())[0].plots[2].figure)["chosen"]
    assert found["error_x"]["arrayminus"] == pytest.approx([0.12 * 0.05])  # type: ignore[index]


def test_two_axes_have_a_line_along_the_front_and_three_have_none(comparison: Make) -> None:
    def lines(axes: list[str]) -> int:
        return sum(t["mode"] == "lines" for t in front(comparison(axes=axes))[0].plots[0].figure["data"])

    assert lines(["size", "retention"]) == 1
    assert lines(["size", "retention", "latency"]) == 0


def test_without_validation_the_front_says_that_it_shows_test(comparison: Make) -> None:
    record = comparison()
    for strategy in record.strategies:
        strategy.validation_retention = None
    figure = front(record)[0]
    assert "retention is that of the test split" in figure.caption
    assert "retention on test" in figure.plots[0].figure["layout"]["yaxis"]["title"]["text"]
    assert traces(figure.plots[0].figure)["chosen"]["y"] == [0.981]


def test_the_table_of_the_front_has_every_strategy(comparison: Make) -> None:
    record = comparison()
    table = front(record)[0].table
    assert [row[0] for row in table.rows] == [strategy.name for strategy in record.strategies]
    assert (table.rows[4][-1], table.rows[5][1]) == ("chosen, on the front", "-")
