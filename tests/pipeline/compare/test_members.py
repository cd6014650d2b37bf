"""Runs that are there, as strategies of a comparison: how they are compared, and what changed between them."""

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.compare.members import comparing, moved
from pipeline.errors import ConfigError
from pipeline.records.record import ModelRecord, Record, StageRecord


def stage(position: int, key: str, **changes: Any) -> StageRecord:
    given = {"position": position, "name": "export.onnx", "settings": {"opset": 20}, "seconds": 1.0, "key": key}
    return StageRecord.model_validate({**MODEL, **given, **changes})


MODEL: dict[str, Any] = {
    "size_bytes": 10,
    "payload_bytes": 10,
    "params": 1,
    "macs": 1,
    "score": 0.5,
    "test_samples": 10,
    "seconds": 1.0,
    "finished": "2026-01-01T00:00:00+00:00",
    "cached": False,
    "form": "onnx",
    "folder": "stages/0",
    "file": "stages/0/model.onnx",
    "digest": "d",
    "predictions": "stages/0/predictions.safetensors",
}


@pytest.fixture
def made() -> Callable[..., Record]:
    """made(*stages): a run of them."""

    def run(*stages: StageRecord, seed: int = 0, baseline: str = "b") -> Record:
        model = ModelRecord.model_validate({**MODEL, "digest": baseline})
        told: dict[str, Any] = {"run": "r", "folder": "f", "started": "s", "config": {}, "data": {}, "environment": {}}
        return Record(**told, seed=seed, baseline=model, stages=list(stages))

    return run


def test_the_same_stages_by_other_code_are_told(made: Callable[..., Record]) -> None:
    same = [made(stage(0, "a"), stage(1, "b")), made(stage(0, "a"), stage(1, "c", settings={"opset": 21}))]
    assert moved(same) == []
    (text,) = moved([made(stage(0, "a")), made(stage(0, "b"))])
    assert text.startswith("stages[0] (export.onnx) was not made of the same code")


@pytest.mark.parametrize("changes", [{"seed": 1}, {"baseline": "other"}])
def test_other_seeds_and_baselines_have_other_results(made: Callable[..., Record], changes: dict[str, Any]) -> None:
    assert moved([made(stage(0, "a")), made(stage(0, "b"), **changes)]) == []


def test_what_is_measured_in_each_run_is_no_change(made: Callable[..., Record]) -> None:
    rows = [{"runtime": "onnxruntime"}]
    assert moved([made(stage(0, "a", latency=rows)), made(stage(0, "b", latency=rows))]) == []


def test_keys_of_compare_are_put_over_those_of_the_runs() -> None:
    found = comparing({"axes": ["size", "retention"], "retention": 0.9}, ["compare.axes=[size, macs]"])
    assert (found.axes, found.retention) == (("size", "macs"), 0.9)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("task.path=x", "`task.path` is set, and with --runs nothing is run; expected a key of `compare:`"),
        ("compare.axes=[size", r"`compare.axes=\[size` is no YAML; expected such as"),
        ("compare.axis=[size]", "there is no key `axis`; did you mean `axes`"),
        ("compare.axes=[size, weight]", "compare.axes"),
    ],
)
def test_other_overrides_are_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        comparing({}, [assignment])
