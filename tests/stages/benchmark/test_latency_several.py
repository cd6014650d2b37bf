"""Several models in the same rounds, in real processes."""

import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import ResourceError, StageError
from pipeline.model import Model, OnnxModel
from stages.benchmark.latency import Latency
from stages.benchmark.timing import rounds
from tests.aliases import Make, Patch
from tests.graphs import products

QUICK: dict[str, Any] = {"rounds": 3, "iterations": 30, "warmup": 3}
ONCE: dict[str, Any] = {**QUICK, "rounds": 1}
NAMES = ["distill + quantize", "../../etc/passwd", "[/bold] <script>\n\0"]


def chain(path: Path, layers: int) -> OnnxModel:
    return products(path, layers, width=64)


@pytest.fixture
def broken(tmp_path: Path) -> OnnxModel:
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    return OnnxModel(tmp_path / "broken.onnx", {"input": torch.rand(2, 64)})


def test_all_models_have_ratios_from_the_same_rounds(tmp_path: Path, context: Make) -> None:
    models = {name: chain(tmp_path / f"{i}.onnx", 2 + 150 * i) for i, name in enumerate(NAMES)}
    ctx = context(baseline=chain(tmp_path / "baseline.onnx", 250), directory=tmp_path / "stage")
    found: dict[str, Any] = Latency(**QUICK, batch=(1, 2)).measure(models, ctx)
    assert list(found) == NAMES
    assert [line["batch"] for line in found[NAMES[0]]] == [1, 2]
    for name, (line, _) in found.items():
        assert line["beside"] == [other for other in NAMES if other != name]
        assert line["noise"] == found[NAMES[0]][0]["noise"]
        assert line["samples"] == 90
        assert len(line["distribution_ms"]["model"]) == len(line["distribution_ms"]["baseline"]) == 101
        assert len(line["round_ratios"]) == 3
    # A hundred times the work: no noise turns that round.
    assert found[NAMES[0]][0]["ratio"]["value"] < found[NAMES[2]][0]["ratio"]["value"]
    assert json.dumps(found)
    assert list(ctx.directory.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["stage"]


def test_the_rows_are_those_of_a_run_alone(tmp_path: Path, context: Make) -> None:
    small, ctx = chain(tmp_path / "small.onnx", 2), context(baseline=chain(tmp_path / "big.onnx", 20))
    assert Latency(**ONCE).run(small, ctx) is small
    (alone,) = context.reports["latency"]  # type: ignore[attr-defined]
    found: dict[str, Any] = Latency(**ONCE).measure({"a": small, "b": small}, ctx)
    assert list(found["a"][0]) == list(alone)
    assert alone["beside"] == []


def test_one_that_fails_stops_no_other(tmp_path: Path, context: Make, broken: OnnxModel) -> None:
    small, ctx = chain(tmp_path / "small.onnx", 2), context(baseline=chain(tmp_path / "big.onnx", 20))
    found: dict[str, Any] = Latency(**QUICK).measure({"bad": broken, "good": small}, ctx)
    assert set(found["bad"]) == {"failure"}
    assert "broken.onnx ended with 1" in found["bad"]["failure"]
    (line,) = found["good"]
    assert line["ratio"]["low"] is not None
    assert line["beside"] == []
    with pytest.raises(StageError, match=r"broken\.onnx ended with 1"):
        Latency(**ONCE).measure({"bad": broken}, ctx)


def test_all_failures_are_told_and_a_broken_baseline_is_everyones(tmp_path: Path, context: Make, broken: Any) -> None:
    found: dict[str, Any] = Latency(**ONCE).measure({"a": broken, "b": broken}, context())
    assert ["failure" in value for value in found.values()] == [True, True]
    small = chain(tmp_path / "small.onnx", 2)
    with pytest.raises(StageError, match=r"broken\.onnx ended with 1"):
        Latency(**ONCE).measure({"a": small, "b": small}, context(baseline=broken))


def test_a_model_that_is_killed_fails_alone(tmp_path: Path, context: Make, monkeypatch: Patch) -> None:
    time_process = rounds.time_process

    def killed(spec: dict[str, Any], folder: Path) -> tuple[list[float], dict[str, Any]]:
        if "greedy" in spec["model"]:
            raise ResourceError("it was killed")
        return time_process(spec, folder)

    monkeypatch.setattr(rounds, "time_process", killed)
    models = {name: chain(tmp_path / f"{name}.onnx", 2) for name in ("greedy", "modest")}
    found: dict[str, Any] = Latency(**ONCE).measure(models, context())
    assert (found["greedy"], found["modest"][0]["samples"]) == ({"failure": "onnxruntime: it was killed"}, 30)


def test_a_form_that_the_runtime_cannot_run_fails_alone(tmp_path: Path, context: Make, tiny: Make) -> None:
    models: dict[str, Model] = {"../\0": tiny(), "onnx": chain(tmp_path / "m.onnx", 2)}
    found: dict[str, Any] = Latency(runtimes=("torch",), rounds=1, iterations=5, examples=0).measure(models, context())
    assert found["../\0"][0]["samples"] == 5
    assert "Leave torch out" in found["onnx"]["failure"]


def test_no_models_need_no_process(context: Make, monkeypatch: Patch) -> None:
    monkeypatch.setattr(rounds, "time_process", None)
    assert Latency().measure({}, context()) == {}


@pytest.mark.parametrize(("load", "warned"), [(1.0, False), (1.01, True)])
def test_a_busy_machine_is_told(tmp_path: Path, context: Make, monkeypatch: Patch, load: float, warned: bool) -> None:
    said: list[str] = []
    monkeypatch.setattr(os, "getloadavg", lambda: (load * (os.cpu_count() or 1), 0.0, 0.0))
    Latency(rounds=1, iterations=5).measure({"m": chain(tmp_path / "m.onnx", 2)}, context(warn=said.append))
    assert [("load of this machine" in text) for text in said] == [True] * warned


def test_a_machine_of_unknown_load_is_not_warned_of(tmp_path: Path, context: Make, monkeypatch: Patch) -> None:
    monkeypatch.delattr(os, "getloadavg")
    ctx = replace(context(), warn=pytest.fail, log=logging.getLogger("test"))
    Latency(rounds=1, iterations=5).measure({"m": chain(tmp_path / "m.onnx", 2)}, ctx)
