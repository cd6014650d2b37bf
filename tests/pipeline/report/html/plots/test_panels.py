"""Latencies, classes, flips and curves: their numbers and their order."""

import json

from pipeline.base.estimate import Estimate
from pipeline.records.parts.flipped import Confusion
from pipeline.records.parts.models import ClassMeasure
from pipeline.report.html.plots import panels


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


def test_a_number_that_is_none_leaves_no_nan_in_the_page() -> None:
    drawn = panels.curves("loss", {"loss": [1.0, float("nan"), float("inf")]})
    assert "NaN" not in json.dumps(drawn)
    assert drawn["data"][0]["y"] == [1.0, None, None]
