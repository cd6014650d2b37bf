"""Waterfalls of a run: their steps add up, and nothing is drawn where no stage changed anything."""

import pytest

from pipeline.records.record import Record
from pipeline.report.html.effects import effects
from pipeline.report.html.views import Json
from tests import records


def bars(figure: Json) -> Json:
    (trace,) = [trace for trace in figure["data"] if "base" in trace]
    return dict(trace)


def test_the_steps_add_up_to_the_difference_of_the_ends(chained: Record) -> None:
    size, accuracy = effects(chained)
    drawn = bars(size.plots[0].figure)
    signs = [{"var(--pass)": -1, "var(--fail)": 1}.get(color, 0) for color in drawn["marker"]["color"]]
    assert sum(sign * length for sign, length in zip(signs, drawn["x"], strict=True)) == 61_000 - 999_900
    assert drawn["base"] == [260_000, 171_000, 171_000, 171_000, 61_000]
    points = [float(str(row[3]).split()[0]) for row in accuracy.table.rows]
    assert sum(points[:-1]) == pytest.approx(points[-1]) == pytest.approx(-1.4)


def test_a_gain_is_green_and_a_loss_is_red_for_bytes_and_accuracy_alike(chained: Record) -> None:
    size, accuracy = (bars(figure.plots[0].figure)["marker"]["color"] for figure in effects(chained))
    won, lost, same = "var(--pass)", "var(--fail)", "var(--muted)"
    assert size == [won, won, same, lost, won]
    assert accuracy == [lost, lost, won, same, lost]


def test_each_step_has_its_change_and_the_doubt_of_it_in_the_table(chained: Record) -> None:
    size, accuracy = effects(chained)
    assert size.table.rows[0] == [
        *("distill.logits", "999.9 kB", "260.0 kB", "-739.9 kB (3.8x)", "0.991 [0.981, 1.001]"),
    ]
    assert [row[3] for row in size.table.rows[2:]] == [
        *("the same", "+2.0 kB", "-112.0 kB (2.8x)", "-938.9 kB (16.4x)"),
    ]
    assert accuracy.table.rows[2][1:4] == ["0.9840", "0.9870", "+0.30 points"]
    assert [row[0] for row in accuracy.table.rows][-2:] == ["quantize.pack", "together"]  # no stage that only measured


def test_without_retention_points_are_of_the_score_and_of_other_scores_there_are_none(chained: Record) -> None:
    chained.stages[1].retention = None
    figure = effects(chained)[1]
    assert figure.label == "Score by stage"
    assert figure.table.rows[0][1:4] == ["0.9500", f"{0.95 * 0.991:.4f}", f"{95 * (0.991 - 1):+.2f} points"]
    chained.stages[0].score = -3.5
    assert effects(chained)[1].table.rows[0][3] == "-4.45"


def test_nothing_is_drawn_where_no_stage_changed_anything(chained: Record) -> None:
    measured_only = records.stage(0, "benchmark.latency", changed=False)
    assert effects(records.record(measured_only, baseline=records.model())) == []
    assert effects(records.record(baseline=records.model())) == []
    assert effects(chained.model_copy(update={"baseline": None})) == []
    smaller = records.stage(0, size_bytes=500)
    assert [f.key for f in effects(records.record(smaller, baseline=records.model()))] == ["effects-bytes"]
