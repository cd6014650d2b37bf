"""Files that answer as they do elsewhere: of ours and from outside, and ONNX Runtime itself without VNNI."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from pipeline.base.use import Reference
from pipeline.deploy import deploy
from pipeline.forms.sandbox.session import Outside
from pipeline.measure.isa.emulate import emulate
from pipeline.measure.isa.errors import NoIntegersError, UnknownError
from pipeline.model import OnnxModel, TorchModel
from pipeline.stage import Stage
from pipeline.task import Split
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.pack import WeightPacking
from stages.quantize.static import StaticQuantization
from tests.contexts import reporting_context
from tests.emulators import needs_emulator, without_vnni
from tests.integers import convolution, model_of, run, values, weights

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(64, 3, 10, 10, generator=GENERATOR)


class Net(nn.Module):
    """Convolutions with groups, strides and paddings, a depthwise one, and a product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.deep = nn.Conv2d(16, 16, 3, groups=16, padding=1)
        self.grouped = nn.Conv2d(16, 12, 3, groups=2, stride=2)
        self.point = nn.Conv2d(12, 20, 1)
        self.head = nn.Linear(20, 5)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.deep(torch.relu(self.stem(input))))
        x = torch.relu(self.point(torch.relu(self.grouped(x))))
        return self.head(x.mean((2, 3)))


def quantized(stage: Stage, folder: Path, build: Callable[[], nn.Module] = Net, data: torch.Tensor = IMAGES) -> Any:
    torch.manual_seed(0)
    module = build()
    with torch.no_grad():
        for weight in (p for p in module.parameters() if p.dim() > 1):
            weight.abs_().sub_(0.3 * weight.max()).clamp_(-weight.max() / 2)  # many that are large and of one sign
    model = deploy(TorchModel(module, {"input": data[:2]}, Reference(use="")), folder / "net.onnx")
    split = Split([({"input": image}, 0) for image in data])  # type: ignore[arg-type]
    return stage.run(model, reporting_context(folder / "stage", split)[0])


def answers(model: OnnxModel, isa: Any, folder: Path, **how: Any) -> Any:
    emulated = emulate(model, isa, folder, **how)
    outputs = emulated.model.predict({"input": IMAGES})
    emulated.model.close()  # type: ignore[union-attr]
    return next(iter(outputs.values())), emulated.layers


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_a_network_answers_otherwise_where_sums_saturate(isa: Any, tmp_path: Path) -> None:
    model = quantized(StaticQuantization(), tmp_path)
    exact, _ = answers(model, "vnni", tmp_path / "vnni")
    there, layers = answers(model, isa, tmp_path / "there")
    assert (there - exact).abs().max() > 0.05 * (exact.max() - exact.min())
    assert [layer.operator for layer in layers] == ["QLinearConv"] * 3 + ["QGemm"]
    assert [layer.shape for layer in layers] == [[16, 3, 3, 3], [12, 8, 3, 3], [20, 12, 1, 1], [20, 5]]
    assert [layer.place for layer in layers] == [1, 3, 4, 5]
    assert torch.equal(answers(model, isa, tmp_path / "exact", exact=[layer.node for layer in layers])[0], exact)


def test_seven_bits_answer_the_same_everywhere(tmp_path: Path) -> None:
    model = quantized(StaticQuantization(reduce_range=True), tmp_path)
    there, layers = answers(model, "avx2", tmp_path / "there")
    assert layers == []
    assert torch.equal(there, answers(model, "arm64", tmp_path / "here")[0])
    assert torch.equal(there, model.predict({"input": IMAGES})["output"])


def test_packed_weights_answer_as_those_that_they_were(tmp_path: Path) -> None:
    model = quantized(StaticQuantization(), tmp_path)
    split = Split([({"input": image}, 0) for image in IMAGES])  # type: ignore[arg-type]
    packed = WeightPacking().run(model, reporting_context(tmp_path / "pack", split)[0])
    assert torch.equal(answers(packed, "avx2", tmp_path / "p")[0], answers(model, "avx2", tmp_path / "m")[0])


def test_a_file_from_outside_is_opened_in_its_child_alone(tmp_path: Path, monkeypatch: Any) -> None:
    model = quantized(StaticQuantization(), tmp_path)
    expected, layers = answers(model, "avx2", tmp_path / "ours")

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was opened here")

    monkeypatch.setattr("onnxruntime.InferenceSession", refuse)
    monkeypatch.setattr("pipeline.measure.isa.emulate.write_emulated", refuse)
    monkeypatch.setattr("onnx.load", refuse)
    theirs, their_layers = answers(replace(model, outside=Outside()), "avx2", tmp_path / "theirs")
    assert torch.equal(theirs, expected)
    assert their_layers == layers


@pytest.mark.parametrize("outside", [None, Outside()])
def test_what_is_not_known_is_an_error_and_leaves_no_file(outside: Any, tmp_path: Path) -> None:
    onnx.save(convolution(np.random.default_rng(0), (4, 8, 3, 3), auto_pad="SAME_UPPER")[0], tmp_path / "same.onnx")
    fp32 = deploy(TorchModel(Net(), {"input": IMAGES[:2]}, Reference(use="")), tmp_path / "fp32.onnx")
    for path, error, message in (
        (tmp_path / "same.onnx", UnknownError, "same.onnx on avx2: .*SAME_UPPER.*Export it with explicit pads"),
        (fp32.path, NoIntegersError, "fp32.onnx has no integers, so it answers the same on every CPU; expected a file"),
    ):
        with pytest.raises(error, match=message):
            emulate(OnnxModel(path, {}, outside=outside), "avx2", tmp_path / "to")
        assert list((tmp_path / "to").iterdir()) == []


def test_a_file_that_onnx_runtime_refuses_is_an_error(tmp_path: Path) -> None:
    proto = model_of("MatMulInteger", ["x", "w"], {"w": weights(np.random.default_rng(0), 8, 3)}, TensorProto.FLOAT)
    onnx.save(proto, tmp_path / "wrong.onnx")
    for outside in (None, Outside()):
        with pytest.raises(Exception, match=r"wrong.onnx on avx2: .*type") as caught:
            emulate(OnnxModel(tmp_path / "wrong.onnx", {}, outside=outside), "avx2", tmp_path / "to")
        assert type(caught.value).__name__ == "StageError"


@needs_emulator
@pytest.mark.slow
def test_each_operator_is_that_of_onnx_runtime_without_vnni(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    cases = [
        (convolution(generator, shape, **attributes)[0], values(generator, 2, channels, 7, 7))
        for shape, channels, attributes in (
            ((8, 3, 3, 3), 3, {"pads": [1, 1, 1, 1]}),
            ((8, 16, 3, 3), 16, {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
            ((6, 5, 3, 3), 10, {"group": 2, "dilations": [2, 2]}),
            ((32, 64, 1, 1), 64, {}),
            ((16, 1, 3, 3), 8, {"group": 8}),
            ((8, 1, 3, 3), 8, {"group": 8}),
            ((70, 300, 3, 3), 300, {"pads": [1, 1, 1, 1]}),
        )
    ]
    constants = {"w": weights(generator, 65, 9), "xz": np.uint8(9), "wz": np.arange(-4, 5, dtype=np.int8)}
    product = model_of("MatMulInteger", ["x", "w", "xz", "wz"], constants, TensorProto.INT32)
    cases += [(product, values(generator, *rows, 65)) for rows in ((1,), (2, 3))]
    constants = {"w": weights(generator, 64, 9), "ws": np.float32(0.002), "b": np.zeros(9, np.float32)}
    ranged = model_of("DynamicQuantizeMatMul", ["x", "w", "ws", "", "b"], constants, TensorProto.FLOAT)
    cases.append((ranged, generator.normal(1, 1, (5, 64)).astype(np.float32)))
    models = [OnnxModel(tmp_path / f"{i}.onnx", {}) for i in range(len(cases))]
    for model, (proto, _) in zip(models, cases, strict=True):
        onnx.save(proto, model.path)
    feeds = [(model.path, {"x": x}) for model, (_, x) in zip(models, cases, strict=True)]
    for model, (_, x), (real,) in zip(models, cases, without_vnni(feeds, tmp_path / "real"), strict=True):
        emulated = emulate(model, "avx2", tmp_path / f"to-{model.path.stem}").model
        assert np.array_equal(run(onnx.load(emulated.path), x)[0], real)


@needs_emulator
@pytest.mark.slow
@pytest.mark.parametrize(("stage", "least"), [
    (StaticQuantization(), 0.999), (StaticQuantization(activations="int8"), 0.999), (DynamicQuantization(), 0.999),
])  # fmt: skip
def test_networks_decide_as_onnx_runtime_without_vnni_does(stage: Stage, least: float, tmp_path: Path) -> None:
    model = quantized(stage, tmp_path)
    ((real,),) = without_vnni([(model.path, {"input": IMAGES.numpy()})], tmp_path / "real")
    ours = answers(model, "avx2", tmp_path / "there")[0].numpy()
    assert (ours.argmax(1) == real.argmax(1)).mean() >= least
    assert abs(ours - real).max() < 0.02 * np.ptp(real)
