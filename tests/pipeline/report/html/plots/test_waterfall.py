"""Bars from one value to the next, from zero or by their logarithm."""

from pipeline.report.html.plots.charts import Axis
from pipeline.report.html.plots.waterfall import Step, waterfall
from pipeline.report.html.views import Json

SIZE = Axis("bytes", is_count=True)


def drawn(*values: float, axis: Axis = SIZE) -> Json:
    steps = [Step(f"step {i}", *values[i : i + 2], "less") for i in range(len(values) - 1)]
    return waterfall(steps, ("first", "last"), axis, less_is_better=True)


def test_sizes_of_one_order_lie_from_zero_and_so_do_their_ends() -> None:
    figure = drawn(100, 80, 90)
    whole = [trace for trace in figure["data"] if trace["type"] == "bar" and "base" not in trace]
    assert [(trace["x"], trace["y"]) for trace in whole] == [([100, 90], [0, 3])]
    assert figure["layout"]["xaxis"]["range"][0] == 0


def test_sizes_far_apart_lie_by_their_logarithm_without_bars_from_zero() -> None:
    figure = drawn(1000, 100, 10)
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert [trace["type"] for trace in figure["data"]] == ["scatter", "scatter", "bar"]


def test_a_score_has_no_bar_from_zero() -> None:
    figure = drawn(0.95, 0.90, axis=Axis("score"))
    assert figure["layout"]["xaxis"]["range"][0] > 0.8
    assert figure["layout"]["xaxis"].get("type") is None


def test_each_row_has_its_name_and_its_change_under_it() -> None:
    ticks = drawn(100, 80, 90)["layout"]["yaxis"]["ticktext"]
    assert ticks == [
        *("<b>baseline</b><br>first", "<b>step 0</b><br>less", "<b>step 1</b><br>less", "<b>last model</b><br>last"),
    ]
