from typing import Any

import pytest

from pipeline.report.html.layers.sensitivity import sensitivity_figure
from pipeline.report.parts.layers import bisection_text, kept_text, sensitivity
from tests.aliases import Make

LAYERS = [
    {"layer": name, "operator": "Conv", "elements": 1000, "nodes": [name], "effects": {"8": 1e-6, "2": worst}}
    for name, worst in (("first", 0.2), ("second", 0.9), ("third", 0.0))
]
KEPT: dict[str, Any] = {
    "limit": "drop 0.003", "examples": 5000, "value": 0.001, "low": -0.0005, "high": 0.0028,
    "weights_bytes": 420_000, "size_bytes": 900_000, "counts": {"8 bits": 12, "4 bits": 44}, "tried": [{}, {}],
}  # fmt: skip


def with_report(record: Make, name: str, report: Any) -> Any:
    one = record()
    one.stages[-1].reports[name] = report
    return one


def test_layers_stand_with_the_one_that_matters_most_first(record: Make) -> None:
    one = with_report(record, "sensitivity", {"layers": LAYERS})
    measured = sensitivity(one)
    assert measured is not None
    assert [layer.layer for layer in measured.worst_first] == ["second", "first", "third"]
    figure = sensitivity_figure(one)
    assert figure is not None
    assert figure.table is not None
    assert [row[0] for row in figure.table.rows] == ["second", "first", "third"]
    (plot,) = figure.plots
    assert [len(trace["x"]) for trace in plot.figure["data"]] == [3, 2]  # zero has no place on a logarithmic axis


def test_a_layer_that_was_not_changed_in_every_way_has_a_gap(record: Make) -> None:
    """A codebook is larger than the first layer, and another than both."""
    effects = ({"8": 1e-6}, {"8": 1e-6, "codebook 16": 0.5}, {})
    layers = [{**layer, "effects": own} for layer, own in zip(LAYERS, effects, strict=True)]
    figure = sensitivity_figure(with_report(record, "sensitivity", {"layers": layers}))
    assert figure is not None
    assert figure.table is not None
    assert figure.table.columns == ["layer", "operator", "elements", "8", "codebook 16"]
    assert [row[3:] for row in figure.table.rows] == [["1e-06", "0.5"], ["1e-06", "-"], ["-", "-"]]
    assert [len(trace["x"]) for trace in figure.plots[0].figure["data"]] == [2, 1]


def test_a_mixture_is_told_in_words(record: Make) -> None:
    text = kept_text(with_report(record, "keep", KEPT))
    assert text == (
        "Kept drop 0.003, 0.001 [-0.001, 0.003] on 5,000 validation examples: layers 12 of 8 bits, 44 of 4 bits, "
        "420.0 kB of weights once packed, 2 tried"
    )


def test_culprits_are_told_with_what_keeps_them(record: Make) -> None:
    layers = [{"layer": "conv1", "nodes": ["n1"], "share": 0.8}, {"layer": "fc", "nodes": ["n7"], "share": 0.15}]
    text = bisection_text(with_report(record, "bisection", {"divergence": 0.5, "layers": layers, "of": 9}))
    assert text == "What is lost comes, of 9 layers, from conv1 (80%), fc (15%); `exclude: [n1, n7]` keeps it"
    own = {"divergence": 0.5, "layers": layers[:1], "of": 9, "remedy": "give it more bits"}
    text = bisection_text(with_report(record, "bisection", own))
    assert text == "What is lost comes, of 9 layers, from conv1 (80%); give it more bits"
    none = bisection_text(with_report(record, "bisection", {"divergence": 0.5, "layers": [], "of": 9}))
    nothing = bisection_text(with_report(record, "bisection", {"divergence": 0.0, "layers": [], "of": 9}))
    assert nothing == "Nothing was lost: with all of 9 layers quantized the answers are the same"
    assert none == "Of 9 layers none accounts for much of what is lost: it comes from many of them"


@pytest.mark.parametrize("name", ["sensitivity", "keep", "bisection"])
def test_a_report_of_a_users_stage_by_that_name_is_left_alone(
    name: str, record: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = with_report(record, name, {"mine": 1})
    assert (sensitivity(one), kept_text(one), bisection_text(one)) == (None, "", "")
    assert f"its report `{name}` is not shown" in caplog.text
