"""Of a network with integers the layer with fewer bits than it bears is named, whichever it is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.base.use import Reference
from pipeline.errors import ConfigError, Interruption, StageError
from pipeline.model import TorchModel
from stages.quantize.aware import AwareQuantization, prepared
from stages.quantize.aware_bisect import AwareBisection
from stages.quantize.static import StaticQuantization
from stages.quantize.training.module import USE, part_of
from stages.quantize.training.ranges import calibrate
from tests.contexts import bare_context, preview_of, tiny_task
from tests.stages.quantize.training.aware_nets import model_of

LAYERS = (*(f"layers.{i}" for i in range(5)), "head")


class Deep(nn.Module):
    """Linear layers, each with a residual sum: (N, 1, 8, 8) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in LAYERS[1:])
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return self.head(x)


def planted(layer: str) -> TorchModel:
    """A network in 8 bits, with one layer in 2."""
    task = tiny_task()
    example = {"input": next(iter(task.train.loader(2))).inputs["input"]}
    folded, plan = prepared(TorchModel(Deep(), example, Reference(use="none")))
    schemes = dict.fromkeys(plan.axes, 8) | {f"{layer}.weight": 2}
    model = folded.edited(USE, plan=plan.to_json(), schemes=schemes, activations="uint8")
    part = part_of(model.module)
    calibrate(model.module, part, task.calibration.loader(64), "mse", 99.9)
    part.start(dict(model.module.named_parameters()))
    return model


def report_of(model: TorchModel, folder: Path, **changes: Any) -> Any:
    reports: dict[str, Any] = {}
    stage = AwareBisection(examples=32)
    assert stage.run(model, bare_context(folder, report=reports.__setitem__, **changes)) is model
    return reports["bisection"]


@pytest.mark.parametrize("layer", ["layers.0", "layers.3", "head"])
def test_a_planted_layer_is_found(layer: str, tmp_path: Path) -> None:
    report = report_of(planted(layer), tmp_path)
    assert report["layers"][0]["layer"] == layer
    assert report["layers"][0]["nodes"] == [f"{layer}.weight"]
    assert report["layers"][0]["share"] > 0.5
    assert report["of"] == len(LAYERS)


def test_it_says_what_is_exchanged_and_whether_that_gains_anything(tmp_path: Path) -> None:
    model, remedies = planted("layers.1"), dict[bool, str]()
    for sign in (1, -1):  # what one score gains the other loses
        report = report_of(model, tmp_path, score=lambda answers, labels, sign=sign: sign * answers.sum(1))
        remedies[report["scores"]["fp32"] > report["scores"]["integers"]] = report["remedy"]
    assert "with the trained weights in fp32 it comes back" in remedies[True]
    assert "give them more bits in `layers`" in remedies[True]
    assert "the trained weights in fp32 score no better" in remedies[False]


def test_what_was_not_trained_with_integers_is_refused(tmp_path: Path) -> None:
    model = model_of("Residual")
    with pytest.raises(ConfigError, match=r"nothing before it is trained with integers\. Put it behind quantize.aware"):
        AwareBisection().check([], preview_of(model))
    with pytest.raises(ConfigError, match="nothing before it is trained with integers"):
        AwareBisection().check([StaticQuantization()], preview_of(model))
    assert not AwareBisection().check([AwareQuantization()], preview_of(model))
    with pytest.raises(ConfigError, match="the validation split is empty; expected examples on which answers"):
        AwareBisection().check([AwareQuantization()], preview_of(model, 0))
    with pytest.raises(StageError, match="the module is not quantized"):
        report_of(model, tmp_path)


def test_a_stop_is_heard(tmp_path: Path) -> None:
    with pytest.raises(Interruption, match="stopped between two groups of layers"):
        report_of(planted("head"), tmp_path, interrupted=lambda: True)
