"""The figures, their numbers and their words, without a browser."""

import json
from pathlib import Path

import pytest

from pipeline.base.estimate import Estimate
from pipeline.records.record import ClassMeasure, Confusion, Record
from pipeline.report.html import panels
from pipeline.report.html.charts import Axis, Point, scatter
from pipeline.report.html.evidence import trajectory
from pipeline.report.html.front import front
from pipeline.report.html.pictures import curve, interval, square
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


def test_stages_that_change_no_figure_share_a_point(record: Record) -> None:
    same = {"size_bytes": record.stages[0].size_bytes, "retention": record.stages[0].retention}
    record.stages[1] = record.stages[1].model_copy(update=same)
    figure = trajectory(record)
    assert traces(figure.plots[0].figure)["after a stage"]["text"] == ["distill.logits<br>→ export.onnx"]
    assert len(figure.table.rows) == 3


def test_without_retention_the_score_is_drawn(record: Record) -> None:
    record.stages[1].retention = None
    found = traces(trajectory(record).plots[0].figure)["after a stage"]
    assert found["y"] == [record.stages[0].score]  # and the export's, which is the same


def test_limits_of_the_budget_are_lines() -> None:
    points = [Point("a", (10.0,) * 3, (0.9, 0.8, 1.0), "step")]
    shapes = scatter(points, Axis("x", limit=20), Axis("y", limit=0.95))["layout"]["shapes"]
    assert [(s.get("x0"), s.get("y0")) for s in shapes] == [(20, 0), (0, 0.95)]


def test_points_at_one_place_and_at_zero_can_be_drawn() -> None:
    points = [Point(name, (0.0,) * 3, (1.0,) * 3, "step") for name in "ab"]
    low, high = scatter(points, Axis("x", is_count=True), Axis("y"))["layout"]["xaxis"]["range"]
    assert low < 0 < high


def test_quantiles_are_told_as_shares() -> None:
    drawn = panels.latencies([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])["data"]
    assert [trace["meta"] for trace in drawn] == ["baseline", "model"]
    assert (drawn[1]["x"], drawn[1]["y"]) == ([1.0, 2.0, 3.0], [0.0, 50.0, 100.0])


def test_the_worst_class_is_first_and_one_without_retention_last() -> None:
    kept = [0.9, None, 0.5]
    classes = [
        ClassMeasure(label=str(i), support=9, score=0.5, retention=Estimate(value=k, low=k, high=k) if k else None)
        for i, k in enumerate(kept)
    ]
    assert [c.label for c in panels.worst_first(classes)] == ["2", "0", "1"]
    drawn = panels.by_class(classes)
    assert (drawn["data"][0]["x"], drawn["layout"]["yaxis"]["ticktext"]) == ([0.5, 0.9], ["2", "0", "1"])


def test_flips_are_a_grid_of_counts_and_too_many_classes_are_none() -> None:
    grid = panels.flips([Confusion(label="10", predicted="2", count=3), Confusion(label="9", predicted="10", count=1)])
    assert grid["data"][0]["z"] == [[None, 1], [3, None]]  # 9 before 10: classes go by number
    assert panels.flips([Confusion(label=str(i), predicted="0", count=1) for i in range(21)]) is None


def test_small_layers_are_merged_and_no_byte_is_lost() -> None:
    layers = [(f"layer{i}", "int8" if i % 2 else "float32", 1000 - i) for i in range(100)]
    assert sum(size for _, _, size in panels.merged(layers)) == sum(size for _, _, size in layers)
    assert len(panels.merged(layers)) == panels.MOST_LAYERS + 2


def test_a_number_that_is_none_leaves_no_nan_in_the_page() -> None:
    drawn = panels.curves("loss", {"loss": [1.0, float("nan"), float("inf")]})
    assert "NaN" not in json.dumps(drawn)
    assert drawn["data"][0]["y"] == [1.0, None, None]


def test_areas_are_to_scale() -> None:
    def sides(size: float) -> list[float]:
        text = str(square(size, 100, 100, "x"))
        return [float(part.split('"')[1]) for part in text.split("<rect")[1:] for part in [part.split(" width=")[1]]]

    outline, filled = sides(25)
    assert filled == pytest.approx(outline / 2, rel=0.01)


def test_small_pictures_escape_what_they_say(hostile: str) -> None:
    for picture in (square(1, 2, 2, hostile), interval(None, (0, 1), hostile), curve([1, 2], hostile)):
        assert "<script" not in picture
        assert "\"'" not in picture.split("aria-label=")[1].split(">")[0]


def test_an_interval_beyond_its_scale_stays_in_the_picture() -> None:
    assert 'x1="6.0" x2="114.0"' in str(interval(Estimate(value=5, low=-3, high=9), (0.9, 1.1), "x"))


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


def test_the_folder_of_templates_is_whole() -> None:
    folder = Path(panels.__file__).parent / "templates"
    assert {path.suffix for path in folder.iterdir() if path.is_file()} == {".j2", ".css", ".js"}
