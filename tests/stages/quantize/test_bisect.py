"""A layer with fewer bits than it bears is found, whichever it is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from pipeline.base.use import Reference
from pipeline.context import Preview
from pipeline.deploy import deploy
from pipeline.errors import ConfigError
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import Split
from stages.quantize.bisect import QuantizationBisection
from tests.contexts import context_of, quadrants, tiny_task

LAYERS = 10
TASK = tiny_task()


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """Ten linear layers whose widths differ, each with a residual sum."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(LAYERS - 1))
            self.head = nn.Linear(64, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1)
            for layer in self.layers:
                x = x + torch.relu(layer(x))
            return self.head(x)

    example = {"input": next(iter(TASK.train.loader(2))).inputs["input"]}
    model = TorchModel(Deep(), example, Reference(use="none"))
    return deploy(model, tmp_path_factory.mktemp("deep") / "net.onnx")


def report_of(model: OnnxModel, folder: Path, **settings: Any) -> Any:
    reports: dict[str, Any] = {}
    stage = QuantizationBisection(examples=32, **settings)
    assert stage.run(model, context_of(TASK, folder, report=reports.__setitem__)) is model
    return reports["bisection"]


NAMES = [*(f"layers.{i}" for i in range(LAYERS - 1)), "head"]
PLANTED = [
    *(("static", name) for name in NAMES),
    *(pytest.param("dynamic", name, marks=pytest.mark.slow) for name in NAMES),
]


@pytest.mark.parametrize(("method", "name"), PLANTED)
def test_a_planted_layer_is_found_in_20_of_20(method: Any, name: str, deep: OnnxModel, tmp_path: Path) -> None:
    report = report_of(deep, tmp_path / "stage", method=method, settings={"layers": {name: 2}})
    assert report["layers"][0]["layer"] == name
    assert report["layers"][0]["share"] > 0.5
    assert len(report["layers"]) == 1
    assert report["of"] == LAYERS


def test_it_names_the_nodes_to_exclude(deep: OnnxModel, tmp_path: Path) -> None:
    settings = {"layers": {"layers.4": 2}}
    report = report_of(deep, tmp_path / "stage", settings=settings)
    (culprit,) = report["layers"]
    excluding = report_of(deep, tmp_path / "again", settings={"exclude": culprit["nodes"]})
    assert excluding["divergence"] < 0.2 * report["divergence"]


def test_where_nothing_is_lost_it_says_so(deep: OnnxModel, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    proto = onnx.load(deep.path)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(proto, tmp_path / "net.onnx")
    with caplog.at_level("INFO"):
        report = report_of(OnnxModel(tmp_path / "net.onnx", deep.example), tmp_path / "stage", method="half")
    assert report == {"divergence": 0.0, "layers": [], "of": LAYERS, "remedy": ""}
    assert "nothing was lost" in caplog.text
    assert "no layer accounts" not in caplog.text


def test_settings_that_the_stage_refuses_are_refused_before_work(deep: OnnxModel) -> None:
    with pytest.raises(
        ConfigError,
        match=r"`settings` has `bits`: Input should be less than or equal to 8; expected those of quantize.static",
    ):
        list(QuantizationBisection(settings={"bits": 9}).check([], Preview(deep, TASK)))
    empty = replace(TASK, validation=Split(quadrants(0, 0)))
    with pytest.raises(ConfigError, match="the validation split is empty; expected examples on which answers"):
        list(QuantizationBisection().check([], Preview(deep, empty)))
    with pytest.raises(ConfigError, match="another mixture"):
        list(QuantizationBisection(settings={"keep": {"drop": 0.1}}).check([], Preview(deep, TASK)))
