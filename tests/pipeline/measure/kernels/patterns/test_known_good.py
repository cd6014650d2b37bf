"""Files that are as they should be: of our own stages, and of floats. None raises an alarm."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline.base.use import Reference
from pipeline.deploy import deploy
from pipeline.forms.graph import refill
from pipeline.measure.kernels.kernels import kernels_of
from pipeline.model import OnnxModel, TorchModel
from pipeline.records.parts.kernels import Kernels
from pipeline.stage import Stage
from pipeline.task import Split
from stages.prune.channels import ChannelPruning
from stages.quantize.aware import AwareQuantization
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.pack import WeightPacking
from stages.quantize.static import StaticQuantization
from tests.contexts import bare_context, quadrants
from tests.pipeline.measure.kernels.patterns.good_nets import NETS

STATIC = StaticQuantization(reduce_range=True)
DYNAMIC = DynamicQuantization(reduce_range=True)


class Good(NamedTuple):
    """A network, what is done to its file, and the least share of MACs that is then in integers."""

    net: str
    stages: tuple[Stage, ...] = ()
    integer: float = 0.0


GOOD = {
    "a plain network, static": Good("plain", (STATIC,), 1.0),
    "a plain network, static and packed": Good("plain", (StaticQuantization(bits=4), WeightPacking()), 1.0),
    "a ResNet's block, static": Good("residual", (STATIC,), 1.0),
    "a MobileNet's block, static": Good("mobile", (STATIC,), 1.0),
    "an LSTM, dynamic": Good("recurrent", (DynamicQuantization(operators=("LSTM", "MatMul", "Gemm")),), 0.9),
    "a BERT, dynamic": Good("bert", (DYNAMIC,), 0.7),
    "a ViT, dynamic": Good("vit", (DYNAMIC,), 0.7),
    "a ViT, static": Good("vit", (STATIC,), 0.8),
    "a plain network of floats": Good("plain"),
    "a MobileNet's block of floats": Good("mobile"),
    "a BERT of floats": Good("bert"),
    "an LSTM of floats": Good("recurrent"),
}


def exported(net: str, folder: Path) -> tuple[OnnxModel, Split]:
    build, draw = NETS[net]
    torch.manual_seed(0)
    inputs = draw()
    model = TorchModel(build().eval(), {name: value[:2] for name, value in inputs.items()}, Reference(use="x"))
    rows = [({name: value[i] for name, value in inputs.items()}, 0) for i in range(64)]
    return deploy(model, folder / "net.onnx"), Split(rows)  # type: ignore[arg-type]


def check(kernels: Kernels, integer: float) -> None:
    assert kernels.alarms == []
    assert kernels.integer_macs is not None
    assert kernels.integer_macs >= integer


@pytest.mark.parametrize("name", GOOD)
def test_a_good_file_raises_no_alarm(name: str, tmp_path: Path) -> None:
    net, stages, integer = GOOD[name]
    before, data = exported(net, tmp_path)
    after = before
    for i, stage in enumerate(stages):
        (tmp_path / str(i)).mkdir()
        after = stage.run(after, bare_context(tmp_path / str(i), calibration=data, train=data))
    check(kernels_of(before, after), integer)


def test_training_with_fake_quantization_ends_in_integers(tmp_path: Path) -> None:
    _, data = exported("plain", tmp_path)
    builder = Reference(use="good_nets.py:Plain", folder=Path(__file__).parent)
    before = TorchModel.build(builder, {"x": torch.stack([data[i][0]["x"] for i in range(2)])})
    after = AwareQuantization(epochs=1).run(before, bare_context(tmp_path, train=data, validation=data))
    files = [deploy(model, tmp_path / f"{i}.onnx") for i, model in enumerate((before, after))]
    check(kernels_of(*files), 1.0)


def test_weights_alone_in_half_precision_are_decoded_at_loading(tmp_path: Path) -> None:
    before, _ = exported("plain", tmp_path)
    proto, casts = onnx.load(before.path), list[onnx.NodeProto]()
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            halves, name = numpy_helper.to_array(tensor).astype(np.float16), tensor.name
            tensor.CopyFrom(numpy_helper.from_array(halves, f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    refill(proto.graph.node, [*casts, *proto.graph.node])
    onnx.save(proto, tmp_path / "half.onnx")
    check(kernels_of(before, OnnxModel(tmp_path / "half.onnx", before.example)), 0.0)


def test_channels_pruned_to_multiples_of_sixteen(tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, draw = NETS["plain"]
    before = TorchModel(build().eval(), {"x": draw()["x"][:2]}, Reference(use="x"))
    data = Split(quadrants(16, 0))
    after = ChannelPruning(channels=0.5, round_to=16).run(before, bare_context(tmp_path, calibration=data))
    files = [deploy(model, tmp_path / f"{i}.onnx") for i, model in enumerate((before, after))]
    check(kernels_of(*files), 0.0)
