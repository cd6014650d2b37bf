"""ONNX Runtime's own format."""

from pathlib import Path

import pytest
import torch

from pipeline.errors import StageError
from pipeline.model import OnnxModel
from pipeline.task import Split
from stages.benchmark.latency import Latency
from tests.aliases import Make
from tests.graphs import products

DATA: Split = Split([(torch.rand(64), 0) for _ in range(8)])  # type: ignore[arg-type]


def test_it_answers_as_the_file_does_and_its_operators_are_reported(tmp_path: Path, context: Make) -> None:
    model = products(tmp_path / "m.onnx", 2, width=64)
    Latency.model_validate({"runtimes": ["ort"], "rounds": 1, "iterations": 5, "examples": 4}).run(
        model, context(calibration=DATA)
    )
    (row,) = context.reports["latency"]  # type: ignore[attr-defined]
    assert (row["runtime"], row["agrees"], row["agreement"]["difference"]) == ("ort", True, 0.0)
    operators = context.reports["ort_operators"]  # type: ignore[attr-defined]
    assert any("MatMul" in line for line in operators)


def test_a_file_that_cannot_be_converted_fails_with_the_reason(tmp_path: Path, context: Make) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    model = OnnxModel(tmp_path / "broken.onnx", {"input": torch.rand(2, 64)})
    with pytest.raises(StageError, match=r"process that converted .*broken\.onnx to \.ort ended with 1: .*Protobuf"):
        Latency.model_validate({"runtimes": ["ort"], "rounds": 1}).run(model, context())
