import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

import stages.quantize.quantizing.quantizer as onnx_tools
from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.deploy import deploy
from pipeline.errors import ConfigError, StageError
from pipeline.fit import check_chain
from pipeline.measure.cost import onnx_macs, onnx_params
from pipeline.measure.size import size_bytes
from pipeline.model import OnnxModel, TorchModel
from pipeline.stage import Stage
from pipeline.task import Split
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.static import StaticQuantization
from tests import graphs
from tests.aliases import Patch
from tests.contexts import preview_of, reporting_context

EXAMPLE = {"input": torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))}
DATA = torch.rand(160, 1, 8, 8, generator=torch.Generator().manual_seed(1))
DATA *= torch.linspace(0, 1, 160).view(-1, 1, 1, 1)
DATA = DATA[torch.randperm(160, generator=torch.Generator().manual_seed(2))]  # of all degrees of brightness
LAYERS = "conv1", "conv2", "head"
SAFE = {"reduce_range": True}  # no saturation on any x86 CPU


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.head = nn.Conv2d(8, 16, 3, padding=1), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv2(torch.relu(self.norm(self.conv1(x)))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.embed, self.encoder, self.head = nn.Embedding(20, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(ids)).mean(1))


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    torch.manual_seed(0)
    module = Net()
    with torch.no_grad():
        module.norm.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr, operator]
        module.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
        module.norm.bias.uniform_(-0.5, 0.5)
    return deploy(TorchModel(module, EXAMPLE, Reference(use="x")), tmp_path_factory.mktemp("cnn") / "cnn.onnx")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    torch.manual_seed(0)
    example = {"input": torch.randint(0, 20, (4, 6))}
    return deploy(TorchModel(Encoder(), example, Reference(use="x")), tmp_path_factory.mktemp("enc") / "enc.onnx")


def make_context(folder: Path, data: torch.Tensor = DATA) -> tuple[Context, dict[str, Any]]:
    return reporting_context(folder / "stage", Split([(x, 0) for x in data]))  # type: ignore[arg-type]


def error(model: OnnxModel, other: OnnxModel, inputs: torch.Tensor) -> float:
    """Root mean square difference of the outputs, relative to their standard deviation over the inputs."""
    a, b = (m.predict({"input": inputs})["output"] for m in (model, other))
    return float(((a - b).pow(2).mean() / (a - a.mean(0)).pow(2).mean()).sqrt())


@pytest.mark.parametrize("stage", [
    StaticQuantization(**SAFE),
    StaticQuantization(**SAFE, calibration="percentile", percentile=99.9),
    StaticQuantization(**SAFE, calibration="entropy"),
    StaticQuantization(activations="int8"),
    StaticQuantization(**SAFE, per_channel=False),
    DynamicQuantization(**SAFE),
    DynamicQuantization(**SAFE, operators=("Conv", "Gemm")),
], ids=["minmax", "percentile", "entropy", "int8", "per-tensor", "dynamic", "dynamic-conv"])  # fmt: skip
def test_quantized_is_close_smaller_and_costs_the_same(
    stage: Any, cnn: OnnxModel, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    before = cnn.path.read_bytes()
    ctx, _ = make_context(tmp_path)
    quantized = stage.run(cnn, ctx)
    assert error(cnn, quantized, DATA[:50]) < 0.15
    assert size_bytes(quantized) < size_bytes(cnn)
    assert onnx_macs(quantized) == onnx_macs(cnn)
    assert onnx_params(quantized) == onnx_params(cnn)
    onnx.checker.check_model(quantized.path, full_check=True)
    assert (cnn.path.read_bytes(), list(cnn.path.parent.iterdir())) == (before, [cnn.path])
    assert list(elsewhere.iterdir()) == []
    assert list(ctx.directory.iterdir()) == [quantized.path]
    assert capsys.readouterr().out == ""


def test_static_keeps_the_ends_and_the_dynamic_batch(cnn: OnnxModel, tmp_path: Path) -> None:
    ctx, reports = make_context(tmp_path)
    quantized = StaticQuantization(batch_size=32, examples=100).run(cnn, ctx)
    before, after = (onnx.load(m.path).graph for m in (cnn, quantized))
    assert (list(before.input), list(before.output)) == (list(after.input), list(after.output))
    for batch in (1, 3, 50):
        assert quantized.predict({"input": DATA[:batch]})["output"].shape == (batch, 4)
    layers = reports["quantization"].pop("layers")
    assert [(layer["weight"], layer["bits"]) for layer in layers] == [(f"{n}.weight", 8) for n in LAYERS]
    assert all(0 < layer["error"]["weights"] < 1e-4 for layer in layers)
    assert reports["quantization"] == {
        "quantized": {"AveragePool": 1, "Conv": 2, "Gemm": 1, "Relu": 2, "Reshape": 1},
        "fp32": {},
        "fp32_bytes": 4 * (8 + 16 + 4),
        "calibration_examples": 100,
    }
    assert reports["progress"][1:] == (100, 100, 4)


def test_static_weights_are_int8_with_the_scale_of_each_channel(cnn: OnnxModel, tmp_path: Path) -> None:
    quantized = StaticQuantization().run(cnn, make_context(tmp_path)[0])
    fp32 = [numpy_helper.to_array(t) for t in onnx.load(cnn.path).graph.initializer]
    graph = onnx.load(quantized.path).graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and values.get(node.input[0], np.zeros(0)).dtype == np.int8:
            found[values[node.input[0]].shape] = [values[name] for name in node.input]
    weights = [w for w in fp32 if w.ndim in (2, 4)]
    assert {w.shape for w in weights} == set(found)
    for weight in weights:
        integers, scale, zero = found[weight.shape]
        rows = weight.reshape(len(weight), -1)
        assert np.allclose(scale, np.abs(rows).max(1) / 127, rtol=1e-5)
        assert zero.dtype == np.int8
        assert not zero.any()
        assert np.abs(integers.reshape(len(weight), -1) - rows / scale[:, None]).max() <= 0.501
    assert set(Counter(values[n.input[2]].dtype.name for n in graph.node if n.op_type == "QuantizeLinear")) == {"uint8"}


@pytest.mark.parametrize("per_channel", [True, False])
def test_biases_stay_fp32_and_the_runtime_has_integer_layers(per_channel: bool, cnn: OnnxModel, tmp_path: Path) -> None:
    ctx, _ = make_context(tmp_path)
    made = StaticQuantization(**SAFE, per_channel=per_channel).run(cnn, ctx)
    graph = onnx.load(made.path).graph
    assert TensorProto.INT32 not in {tensor.data_type for tensor in graph.initializer}
    names = {tensor.name: tensor for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert [names[node.input[2]].data_type for node in layers] == [TensorProto.FLOAT] * 3
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(str(made.path), options, providers=["CPUExecutionProvider"])
    loaded = onnx.load(tmp_path / "loaded.onnx").graph
    kinds = sorted(n.op_type for n in loaded.node if "Conv" in n.op_type or "Gemm" in n.op_type)
    assert kinds == ["QGemm", "QLinearConv", "QLinearConv"]


def test_ranges_come_from_the_calibration_data(cnn: OnnxModel, tmp_path: Path) -> None:
    graph = onnx.load(StaticQuantization().run(cnn, make_context(tmp_path, DATA * 3)[0]).path).graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    (first,) = (n for n in graph.node if n.input[0] == "input")
    assert values[first.input[1]] == pytest.approx(float(DATA.max()) * 3 / 255, rel=1e-5)


def test_calibration_in_batches_gives_the_same_file(cnn: OnnxModel, tmp_path: Path) -> None:
    stages = [(StaticQuantization(batch_size=size), make_context(tmp_path / str(size))[0]) for size in (7, 160)]
    assert len({stage.run(cnn, ctx).path.read_bytes() for stage, ctx in stages}) == 1


def test_batchnorm_is_folded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 1, 3, 3)), **{n: rng.uniform(0.5, 1, 4) for n in ("g", "b", "m", "v")}}
    nodes = [
        graphs.node("Conv", ["input", "w"], ["c"], pads=[1, 1, 1, 1]),
        graphs.node("BatchNormalization", ["c", "g", "b", "m", "v"], ["output"]),
    ]
    ends = {"input": ["batch", 1, 8, 8]}, {"output": ["batch", 4, 8, 8]}
    onnx.save(graphs.graph(nodes, *ends, weights), tmp_path / "bn.onnx")
    model = OnnxModel(tmp_path / "bn.onnx", EXAMPLE)
    quantized = StaticQuantization(**SAFE).run(model, make_context(tmp_path)[0])
    kinds = Counter(node.op_type for node in onnx.load(quantized.path).graph.node)
    assert (kinds["BatchNormalization"], kinds["Conv"]) == (0, 1)
    assert error(model, quantized, DATA[:20]) < 0.05


@pytest.mark.parametrize("stage", [StaticQuantization(**SAFE), DynamicQuantization(**SAFE)], ids=["static", "dynamic"])
def test_transformer_with_equal_layers(stage: Any, encoder: OnnxModel, tmp_path: Path) -> None:
    # Both layers start with equal weights, which the exporter shares.
    ids = torch.randint(0, 20, (150, 6))
    quantized = stage.run(encoder, make_context(tmp_path, ids)[0])
    assert error(encoder, quantized, ids) < 0.15
    assert onnx_macs(quantized) == onnx_macs(encoder)


def test_dynamic_hears_gemm_and_excluded_gemms(cnn: OnnxModel, encoder: OnnxModel, tmp_path: Path) -> None:
    ctx, reports = make_context(tmp_path)
    DynamicQuantization(operators=("Gemm",)).run(cnn, ctx)
    assert reports["quantization"]["quantized"] == {"Gemm": 1}
    DynamicQuantization(operators=("Gemm",)).run(encoder, ctx)
    every = reports["quantization"]
    assert set(every["quantized"]) == {"Gemm"}
    assert every["fp32"]["MatMul"] > 0
    gemm = next(n.name for n in onnx.load(encoder.path).graph.node if n.op_type == "Gemm")
    DynamicQuantization(operators=("Gemm",), exclude=(gemm,)).run(encoder, ctx)
    assert reports["quantization"]["fp32"]["Gemm"] == 1
    assert reports["quantization"]["quantized"]["Gemm"] == every["quantized"]["Gemm"] - 1


def test_static_hears_operators_and_exclude(cnn: OnnxModel, tmp_path: Path) -> None:
    ctx, reports = make_context(tmp_path)
    for conv in [n.name for n in onnx.load(cnn.path).graph.node if n.op_type == "Conv"]:
        StaticQuantization(operators=("Conv", "Gemm"), exclude=(conv,)).run(cnn, ctx)
        assert reports["quantization"]["quantized"] == {"Conv": 1, "Gemm": 1}
        assert reports["quantization"]["fp32"] == {"AveragePool": 1, "Conv": 1, "Relu": 2, "Reshape": 1}


@pytest.mark.parametrize(("stage", "message"), [
    (StaticQuantization(operators=("LSTM", "Softmax")), r"no node was quantized.*\"Conv\": 2.*Name more operators"),
    (StaticQuantization(exclude=("node_conv3d",)), r"`exclude` has `node_conv3d`.*did you mean `node_conv2d"),
])  # fmt: skip
def test_what_cannot_work_is_an_error(stage: Any, message: str, cnn: OnnxModel, tmp_path: Path) -> None:
    with pytest.raises((StageError, ConfigError), match=message):
        stage.run(cnn, make_context(tmp_path)[0])
    assert list((tmp_path / "stage").iterdir()) == []


def test_a_quantized_graph_is_refused(cnn: OnnxModel, tmp_path: Path) -> None:
    quantized = StaticQuantization().run(cnn, make_context(tmp_path)[0])
    with pytest.raises(StageError, match="quantized already: it has DequantizeLinear, QuantizeLinear"):
        DynamicQuantization().run(quantized, make_context(tmp_path / "again")[0])


def test_calibration_data_must_be_there(cnn: OnnxModel, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="calibration split is empty"):
        StaticQuantization().run(cnn, make_context(tmp_path, DATA[:0])[0])


def test_large_models_keep_their_weights_beside(cnn: OnnxModel, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(onnx_tools, "EXTERNAL_DATA_BYTES", 0)
    for stage in (StaticQuantization(**SAFE), DynamicQuantization(**SAFE)):
        assert error(cnn, stage.run(cnn, make_context(tmp_path / type(stage).__name__)[0]), DATA[:20]) < 0.15


def check(stage: Stage, calibration: int = 512) -> list[str]:
    return list(stage.check([], preview_of(OnnxModel(Path("x.onnx"), EXAMPLE), calibration)))


def test_check_warns_of_few_examples(monkeypatch: Patch) -> None:
    monkeypatch.setattr("pipeline.base.hardware.cpu_flags", lambda: {"avx2", "avx_vnni"})
    assert check(StaticQuantization()) == []
    assert "uses 20 examples of 20" in check(StaticQuantization(), 20)[0]
    assert "uses 50 examples of 512" in check(StaticQuantization(examples=50))[0]


def test_check_warns_of_saturation_and_slow_convolutions(monkeypatch: Patch) -> None:
    monkeypatch.setattr("pipeline.base.hardware.cpu_flags", lambda: {"avx2"})
    for stage in (StaticQuantization(), StaticQuantization(activations="int8"), DynamicQuantization()):
        assert re.match("this CPU has no VNNI: .* accuracy here, .*; `reduce_range: true` avoids it", check(stage)[0])
    assert check(StaticQuantization(reduce_range=True)) == []
    assert "slower" in check(DynamicQuantization(operators=("Conv",), reduce_range=True))[0]


def test_check_warns_of_the_target_instead_of_this_cpu(monkeypatch: Patch) -> None:
    preview = preview_of(OnnxModel(Path("x.onnx"), EXAMPLE), 512)
    for flags, isa, warned in (({"avx_vnni"}, "avx512", True), ({"avx2"}, "arm64", False), ({"avx2"}, "vnni", False)):
        monkeypatch.setattr("pipeline.base.hardware.cpu_flags", lambda flags=flags: flags)
        for stage in (StaticQuantization(), DynamicQuantization()):
            texts = list(stage.check([], replace(preview, isa=isa)))
            assert [f"{isa}, the target, is x86 without VNNI" in text for text in texts] == [True] * warned


@pytest.mark.parametrize(("stage", "message"), [
    (StaticQuantization(operators=("conv",)), "`operators` has `conv`; did you mean `Conv`"),
    (DynamicQuantization(operators=("Gem",)), "did you mean `Gemm`"),
    (StaticQuantization(percentile=99.0), "`percentile` is 99 and `calibration` is minmax.*Set calibration"),
])  # fmt: skip
def test_check_refuses(stage: Stage, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(stage)


def test_chain_wants_an_onnx_file() -> None:
    for stage in (StaticQuantization(), DynamicQuantization()):
        assert check_chain([("stages[0]", stage)], OnnxModel) is OnnxModel
        with pytest.raises(ConfigError, match=r"Put export\.onnx before it"):
            check_chain([("stages[0]", stage)], TorchModel)
