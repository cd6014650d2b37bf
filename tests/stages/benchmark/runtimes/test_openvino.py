"""The real OpenVINO beside ONNX Runtime."""

from pathlib import Path
from typing import Any

import pytest

from stages.benchmark.latency import Latency
from stages.benchmark.runtimes.openvino import OpenVino
from stages.quantize.static import StaticQuantization
from tests.aliases import Make, Patch

ONCE: dict[str, Any] = {"rounds": 1, "iterations": 5, "warmup": 1}


def rows_of(model: Any, ctx: Any, context: Any, **settings: Any) -> list[dict[str, Any]]:
    Latency.model_validate({**ONCE, **settings}).run(model, ctx)
    return list(context.reports["latency"])


def test_it_answers_as_onnx_runtime_does_and_says_in_what_precision(tiny: Make, context: Make) -> None:
    pytest.importorskip("openvino")
    model = tiny()
    (row,) = rows_of(model, context(baseline=model), context, runtimes=["openvino"], batch=(2,), examples=9)
    assert row["ratio"]["value"] > 0
    assert (row["runtime"], row["settings"], row["execution_provider"]) == ("openvino", {"precision": "f32"}, "CPU")
    assert (row["precision"], row["version"].split("-")[0]) == ("f32", "2026.4.1")
    assert row["agrees"]
    assert row["agreement"]["difference"] < 1e-5
    assert (row["agreement"]["examples"], row["agreement"]["decisions"]) == (8, 1.0)


def test_int8_runs_in_integers_and_agrees_by_steps(tiny: Make, context: Make, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    ctx = context()
    model = StaticQuantization().run(ctx.deployed(tiny()), ctx)
    (row,) = rows_of(model, context(), context, runtimes=["openvino"])
    assert "i8" in row["precision"] or "u8" in row["precision"]
    assert row["agreement"]["tolerance"] == pytest.approx(2 / 255)
    assert row["agreement"]["decisions"] > 0.9


def test_where_it_is_missing_the_command_is_told(monkeypatch: Patch) -> None:
    monkeypatch.setattr(OpenVino, "package", "no-such-package")
    missing = OpenVino(use="openvino").missing()
    assert missing == "no-such-package is not installed: pip install 'shrinkline[openvino]'"
