"""Runs that are there, as strategies of a comparison: how they are compared, and what changed between them."""

from typing import Any

import pytest

from pipeline.compare.members import comparing, warnings_of_changes
from pipeline.errors import ConfigError
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Record
from tests import records


def stage(position: int, key: str, **changes: Any) -> StageRecord:
    return records.stage(position, "export.onnx", **{"settings": {"opset": 20}, "key": key, **changes})


def made(*stages: StageRecord, seed: int = 0, baseline: str = "b") -> Record:
    return records.record(*stages, seed=seed, baseline=records.model(digest=baseline))


def test_the_same_stages_by_other_code_are_told() -> None:
    same = [made(stage(0, "a"), stage(1, "b")), made(stage(0, "a"), stage(1, "c", settings={"opset": 21}))]
    assert warnings_of_changes(same) == []
    (text,) = warnings_of_changes([made(stage(0, "a")), made(stage(0, "b"))])
    assert text.startswith("stages[0] (export.onnx) was not made of the same code")


@pytest.mark.parametrize("changes", [{"seed": 1}, {"baseline": "other"}])
def test_other_seeds_and_baselines_have_other_results(changes: dict[str, Any]) -> None:
    assert warnings_of_changes([made(stage(0, "a")), made(stage(0, "b"), **changes)]) == []


def test_what_is_measured_in_each_run_is_no_change() -> None:
    rows = [{"runtime": "onnxruntime"}]
    assert warnings_of_changes([made(stage(0, "a", latency=rows)), made(stage(0, "b", latency=rows))]) == []


def test_keys_of_compare_are_put_over_those_of_the_runs() -> None:
    found = comparing({"axes": ["size", "retention"], "retention": 0.9}, ["compare.axes=[size, macs]"])
    assert (found.axes, found.retention) == (("size", "macs"), 0.9)


@pytest.mark.parametrize(("assignment", "message"), [
    ("task.path=x", "`task.path` is set, and with --runs nothing is run; expected a key of `compare:`"),
    ("compare.axes=[size", r"`compare.axes=\[size` is no YAML; expected such as"),
    ("compare.axis=[size]", "there is no key `axis`; did you mean `axes`"),
    ("compare.axes=[size, weight]", "compare.axes"),
])  # fmt: skip
def test_other_overrides_are_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        comparing({}, [assignment])
