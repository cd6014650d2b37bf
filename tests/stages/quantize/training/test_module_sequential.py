"""A network that runs all of its parts, of which the quantizers become one."""

from pathlib import Path

import torch
from torch import nn

from pipeline.base.use import Reference
from pipeline.deploy import deploy
from pipeline.model import TorchModel
from pipeline.task import Split
from stages.quantize.aware import prepared
from stages.quantize.training.module import USE, part_of
from stages.quantize.training.ranges import calibrate
from tests.stages.quantize.training.aware_nets import images


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))


def test_an_nn_sequential_is_trained_and_written_like_any_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = images(200)
    folded, plan = prepared(TorchModel(net(), {"input": data[:4]}, Reference(use=f"{__name__}:net")))
    model = folded.edited(USE, plan=plan.to_json(), schemes=dict.fromkeys(plan.axes, 8), activations="uint8")
    calibrate(model.module, part_of(model.module), Split([(x, 0) for x in data]).loader(64), "mse", 99.9)
    part_of(model.module).start(dict(model.module.named_parameters()))
    before, ours = (one.predict({"input": data})["output"] for one in (folded, model))
    theirs = deploy(model, tmp_path / "model.onnx").predict({"input": data})["output"]
    assert 0 < float((before - ours).abs().max()) < 0.1 * float(before.abs().max())
    assert float((ours - theirs).abs().max()) < 1e-3
