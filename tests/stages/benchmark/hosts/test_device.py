"""What other runtimes need on a device: its own package and numpy, and the files of the model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from pipeline.model import OnnxModel
from pipeline.task import Split
from stages.benchmark.latency import Latency
from stages.benchmark.runtimes.ncnn import Ncnn
from tests import edge
from tests.aliases import Make
from tests.devices import Server, python_with, served
from tests.graphs import products

pytestmark = served
NCNN = Ncnn(use="ncnn")
DATA: Split = Split([(torch.rand(32), 0) for _ in range(9)])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as device:
        yield device


def row_of(server: Server, model: Any, context: Make, use: str, **on: Any) -> dict[str, Any]:
    """The row of a model in a runtime on the device, where nothing is left."""
    settings = {"runtimes": [{"use": use, "on": server.on(**on)}], "rounds": 1, "iterations": 3, "examples": 8}
    Latency.model_validate(settings).run(model, context(calibration=DATA, baseline=model))
    assert server.left() == []
    (row,) = context.reports["latency"]  # type: ignore[attr-defined]
    return dict(row)


@edge.made(NCNN)
def test_an_environment_with_the_runtime_alone_is_enough(server: Server, tmp_path: Path, context: Make) -> None:
    row = row_of(server, products(tmp_path / "m.onnx", 2), context, "ncnn", python=NCNN.python)
    assert (row["agrees"], row["samples"], row["version"]) == (True, 3, NCNN.version())


def test_data_beside_a_file_are_sent_with_it(server: Server, tmp_path: Path, context: Make) -> None:
    model = products(tmp_path / "plain.onnx", 2)
    (tmp_path / "split").mkdir()
    path = tmp_path / "split" / "model.onnx"
    data = {"all_tensors_to_one_file": True, "location": "weights of it.data", "size_threshold": 0}
    onnx.save_model(onnx.load(model.path), path, save_as_external_data=True, **data)
    assert (path.parent / "weights of it.data").stat().st_size > 8000
    python = python_with(tmp_path / "environment", "numpy", "onnxruntime")
    row = row_of(server, OnnxModel(path, model.example), context, "onnxruntime", python=python)
    assert (row["agrees"], row["samples"]) == (True, 3)
