"""Whole stages with fewer bits: real files in ONNX Runtime."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from pipeline.errors import StageError
from pipeline.forms.sandbox.process import DEFAULT
from pipeline.forms.sandbox.session import Outside
from pipeline.model import OnnxModel
from pipeline.task import Split
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.pack import WeightPacking
from stages.quantize.static import StaticQuantization
from tests.contexts import reporting_context
from tests.graphs import graph, node
from tests.quantizing import Ran, draw

Quantize = Callable[..., Ran]
IMAGES = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(0)).cumsum(2).cumsum(3) / 8
SAFE = {"reduce_range": True}  # no saturation on any x86 CPU


def convolutional() -> onnx.ModelProto:
    """Four convolutions, grouped, strided, transposed, and a linear layer; images that are smooth, as real ones are."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["h1"], "first", pads=[1] * 4),
        node("Relu", ["h1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["h2"], "second", pads=[1] * 4, group=2, strides=[2, 2]),
        node("Relu", ["h2"], ["r2"]),
        node("ConvTranspose", ["r2", "w3", "b3"], ["h3"], "up", strides=[2, 2]),
        node("Relu", ["h3"], ["r3"]),
        node("Conv", ["r3", "w4", "b4"], ["h4"], "third"),
        node("GlobalAveragePool", ["h4"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w5", "b5"], ["y"], "last", transB=1),
    ]
    shapes = {"w1": (8, 3, 3, 3), "w2": (16, 4, 3, 3), "w3": (16, 8, 2, 2), "w4": (12, 8, 3, 3), "w5": (5, 12)}
    biases = {"b1": 8, "b3": 8, "b4": 12, "b5": 5}
    weights = {name: draw(*shape) for name, shape in shapes.items()} | {name: draw(n) for name, n in biases.items()}
    return graph(nodes, {"x": ["batch", 3, 8, 8]}, {"y": ["batch", 5]}, weights)


def linear() -> onnx.ModelProto:
    """A table, a recurrent layer, two products with biases and a Gemm, over five numbers an example."""
    nodes = [
        node("Gather", ["table", "x"], ["e"], "lookup"),
        node("LSTM", ["e", "w", "r", "b"], ["h"], "recurrent", hidden_size=8, direction="bidirectional"),
        node("Transpose", ["h"], ["t"], perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "shape"], ["s"]),
        node("MatMul", ["s", "m1"], ["p"], "middle"),
        node("Add", ["p", "a1"], ["q"]),
        node("Relu", ["q"], ["u"]),
        node("Gemm", ["u", "g", "c"], ["y"], "last", transB=1),
    ]
    shapes = {
        "table": (300, 6),
        "w": (2, 32, 6),
        "r": (2, 32, 8),
        "b": (2, 64),
        "m1": (16, 16),
        "a1": (16,),
        "g": (4, 16),
        "c": (4,),
    }
    weights = {name: draw(*shape) * 3 for name, shape in shapes.items()} | {"shape": np.array([-1, 16])}
    return graph(nodes, {"x": (onnx.TensorProto.INT64, ["batch", 5])}, {"y": [None, 4]}, weights)


def integers(model: OnnxModel) -> dict[tuple[int, ...], Any]:
    """The int8 weights by their shape."""
    arrays = [numpy_helper.to_array(t) for t in onnx.load(model.path).graph.initializer]
    return {a.shape: a for a in arrays if a.dtype == np.int8 and a.size > 64}


@pytest.mark.parametrize(("settings", "values"), [
    ({"bits": 4}, [*range(-8, 8)]), ({"bits": 2}, [-2, -1, 0, 1]), ({"bits": "ternary"}, [-1, 0, 1]),
])  # fmt: skip
def test_weights_are_integers_of_the_bits_and_the_runtime_has_its_integer_layers(
    settings: Any, values: list[int], quantized: Quantize, tmp_path: Path
) -> None:
    plain, ran = (quantized(StaticQuantization(**more), convolutional(), x=IMAGES) for more in ({}, settings))
    found = integers(ran.model)
    for shape in ((16, 4, 3, 3), (16, 8, 2, 2), (12, 8, 3, 3)):
        assert {*np.unique(found[shape])} <= {*values}
    assert np.abs(found[8, 3, 3, 3]).max() == 127
    assert [(layer["node"], layer["bits"]) for layer in ran.report["layers"]] == [
        ("first", 8), ("second", settings["bits"]), ("up", settings["bits"]), ("third", settings["bits"]), ("last", 8),
    ]  # fmt: skip
    assert operators(ran.model, tmp_path) == operators(plain.model, tmp_path)
    assert operators(ran.model, tmp_path)["QLinearConv"] == 3


def operators(model: OnnxModel, folder: Path) -> Counter[str]:
    """What ONNX Runtime makes of a file when it loads it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "loaded.onnx")
    onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "loaded.onnx").graph.node)


def test_a_codebook_and_named_layers(quantized: Quantize) -> None:
    stage = StaticQuantization(codebook=6, layers={"third": 3, "w1": "ternary"}, first_last=5)
    ran = quantized(stage, convolutional(), x=IMAGES)
    layers = {layer["node"]: layer for layer in ran.report["layers"]}
    assert [layers[name].get("bits") for name in ("first", "second", "third", "last")] == ["ternary", None, 3, 5]
    assert layers["second"]["codebook"] == 6
    assert (layers["second"]["values"], layers["first"]["values"]) == (6, 3)
    assert len(np.unique(integers(ran.model)[16, 4, 3, 3])) == 6


def test_the_reported_error_is_that_of_the_weights(quantized: Quantize) -> None:
    proto = convolutional()
    ran = quantized(StaticQuantization(bits=3, operators=("Conv",)), proto, x=IMAGES)
    weight = next(numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == "w2")
    graph_after = onnx.load(ran.model.path).graph
    tensors = {t.name: numpy_helper.to_array(t) for t in graph_after.initializer}
    (back,) = [n for n in graph_after.node if tensors.get(n.input[0], np.zeros(0)).shape == weight.shape]
    stored, scale = tensors[back.input[0]], tensors[back.input[1]]
    error = ((weight - stored * scale[:, None, None, None]) ** 2).sum() / (weight**2).sum()
    (layer,) = [layer for layer in ran.report["layers"] if layer["weight"] == "w2"]
    assert layer["error"]["weights"] == pytest.approx(error, rel=1e-4)
    assert (scale.astype(np.float16) == scale).all()


def distance(ran: Ran, data: Any, name: str = "y") -> float:
    """Mean squared difference of the outputs."""
    a, b = (model.predict(data)[name] for model in (ran.before, ran.model))
    return float((a - b).pow(2).mean())


@pytest.mark.parametrize("settings", [{"bits": 3}, {"codebook": 6}, {"bits": 3, "per_channel": False}])
def test_adaptive_rounding_keeps_the_outputs_better(settings: Any, quantized: Quantize) -> None:
    runs = [
        quantized(StaticQuantization(**SAFE, **settings, **way), convolutional(), x=IMAGES)
        for way in ({}, {"rounding": "adaptive"})
    ]
    nearest, adaptive = (distance(ran, {"x": IMAGES}) for ran in runs)
    assert adaptive < 0.6 * nearest
    assert all(layer["error"]["outputs"] < layer["error"]["weights"] for layer in runs[1].report["layers"][1:-1])


def test_bias_correction_makes_the_means_equal(quantized: Quantize) -> None:
    proto = graph(
        [node("Conv", ["x", "w1"], ["c"], "one", pads=[1] * 4), node("Reshape", ["c", "s"], ["f"]),
         node("Gemm", ["f", "w2", "b"], ["y"], "two")],
        {"x": ["batch", 3, 8, 8]}, {"c": ["batch", 4, 8, 8], "y": ["batch", 5]},
        {"w1": draw(4, 3, 3, 3), "w2": draw(256, 5), "b": draw(5), "s": np.array([-1, 256])},
    )  # fmt: skip
    data = {"x": IMAGES + 1}

    def shift(**more: Any) -> Any:
        settings = {"layers": {"one": 3}, "calibration": "minmax"} | more
        ran = quantized(StaticQuantization(**SAFE, **settings), proto, **data)
        before, after = (model.predict(data)["c"].mean((0, 2, 3)) for model in (ran.before, ran.model))
        return (after - before).abs().max()

    assert shift() > 0.02
    assert shift(bias_correction=True) < 0.1 * shift()
    assert shift(bias_correction=True, rounding="adaptive") < 0.1 * shift()


def test_a_product_has_its_bias_corrected_in_the_addition(quantized: Quantize) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"], "one"), node("Add", ["h", "b"], ["y"]),
        node("MatMul", ["y", "v"], ["z"], "two"),
    ]  # fmt: skip
    weights = {"w": draw(8, 6), "b": draw(6), "v": draw(6, 3)}
    proto = graph(nodes, {"x": ["batch", 2, 8]}, {"y": ["batch", 2, 6], "z": ["batch", 2, 3]}, weights)
    data = {"x": IMAGES[:, :2, 0] + 2}
    ran = quantized(StaticQuantization(bias_correction=True, layers={"one": 3}), proto, **data)
    before, after = (model.predict(data)["y"].mean((0, 1)) for model in (ran.before, ran.model))
    assert (before - after).abs().max() < 0.02
    assert ran.report["bias"] == ["two"]


@pytest.mark.parametrize("way", [{}, {"rounding": "adaptive"}], ids=["nearest", "adaptive"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_dynamic_takes_tables_recurrent_layers_and_products(way: Any, per_channel: bool, quantized: Quantize) -> None:
    operators = ("MatMul", "Gemm", "Gather", "LSTM")
    ids = torch.randint(0, 30, (64, 5), generator=torch.Generator().manual_seed(0))
    stage = DynamicQuantization(operators=operators, bits=4, first_last=5, per_channel=per_channel, **SAFE, **way)
    ran = quantized(stage, linear(), x=ids)
    assert {layer["weight"]: layer["bits"] for layer in ran.report["layers"]} == {
        "table": 5, "w": 4, "r": 4, "m1": 4, "g": 5,
    }  # fmt: skip
    assert all(layer["values"] <= 2 ** layer["bits"] for layer in ran.report["layers"])
    assert ran.error < 0.4
    assert ran.report.get("nearest", []) == (["lookup", "recurrent"] if way else [])


def test_a_table_that_is_looked_up_too_is_rounded_to_the_nearest(quantized: Quantize) -> None:
    nodes = [
        node("Gather", ["t", "x"], ["e"], "look"), node("MatMul", ["e", "m"], ["h"], "middle"),
        node("MatMul", ["h", "t"], ["y"], "out"),
    ]  # fmt: skip
    weights = {"t": draw(20, 8), "m": draw(8, 20)}
    proto = graph(nodes, {"x": (onnx.TensorProto.INT64, ["n", 5])}, {"y": ["n", 5, 8]}, weights)
    for stage in (StaticQuantization, DynamicQuantization):
        ran = quantized(stage(layers={"out": 4}, rounding="adaptive"), proto, x=torch.randint(0, 20, (64, 5)))
        assert "out" in ran.report["nearest"]
        layer = next(layer for layer in ran.report["layers"] if layer["node"] == "out")
        assert layer["error"]["weights"] < 0.02


def test_adaptive_rounding_of_products_in_dynamic_files(quantized: Quantize) -> None:
    ids = torch.randint(0, 30, (128, 5), generator=torch.Generator().manual_seed(0))
    runs = [
        quantized(DynamicQuantization(bits=3, **SAFE, **way), linear(), x=ids) for way in ({}, {"rounding": "adaptive"})
    ]
    nearest, adaptive = (distance(ran, {"x": ids}) for ran in runs)
    assert adaptive < 0.6 * nearest
    assert runs[1].report["calibration_examples"] == 128


@pytest.mark.parametrize(("stage", "proto", "message"), [
    (StaticQuantization(layers={"frist": 4}), convolutional(), "`layers` has `frist`, .*did you mean `first`"),
    (StaticQuantization(layers={"first": 4}, exclude=("first",)), convolutional(), "a Conv, is not rounded here"),
    (StaticQuantization(layers={"w5": {"codebook": 61}}), convolutional(), "61 values is larger than the 60 weights"),
    (DynamicQuantization(layers={"middle": {"codebook": 256}}, operators=("LSTM",)), linear(), "a Gemm, is not"),
    (DynamicQuantization(operators=("Gather", "LSTM"), rounding="adaptive"), linear(), "Set rounding: nearest"),
    (DynamicQuantization(operators=("Gather",), bits=4), linear(), "all weights stay at 8 bits"),
])  # fmt: skip
def test_what_cannot_be_is_one_error(stage: Any, proto: Any, message: str, tmp_path: Path) -> None:
    onnx.save(proto, tmp_path / "net.onnx")
    data = IMAGES if "conv" in str(proto.graph.node[0].op_type).lower() else torch.randint(0, 30, (64, 5))
    ctx, _ = reporting_context(tmp_path / "stage", Split([({"x": x}, 0) for x in data]))
    model = OnnxModel(tmp_path / "net.onnx", {})
    with pytest.raises(StageError, match=message):
        stage.run(model, ctx)
    assert list((tmp_path / "stage").iterdir()) == []


@pytest.mark.parametrize("stage", [
    StaticQuantization(bits=3, rounding="adaptive", bias_correction=True, calibration="mse", batch_size=50),
    StaticQuantization(codebook=7, layers={"third": "ternary"}),
    DynamicQuantization(operators=("Gemm", "Conv"), first_last=4, rounding="adaptive"),
], ids=["adaptive", "codebook", "dynamic"])  # fmt: skip
def test_a_file_from_outside_has_the_same_bytes(stage: Any, tmp_path: Path) -> None:
    onnx.save(convolutional(), tmp_path / "net.onnx")
    files, reports = [], []
    for outside in (None, Outside(limits=DEFAULT)):
        ctx, report = reporting_context(tmp_path / "stage", Split([({"x": x}, 0) for x in IMAGES]))
        files.append(stage.run(OnnxModel(tmp_path / "net.onnx", {}, outside=outside), ctx).path.read_bytes())
        reports.append(report["quantization"])
    assert files[0] == files[1]
    errors = [[layer.pop("error") for layer in report["layers"]] for report in reports]
    for ours, theirs in zip(*errors, strict=True):  # sums of floats, whose order is another process's own
        assert theirs == pytest.approx(ours, rel=1e-5)
    assert reports[0] == reports[1]


@pytest.mark.parametrize(("stage", "expected"), [
    (StaticQuantization(bits=4), {576: "int4", 512: "int4", 864: "int4"}),
    (DynamicQuantization(bits=4, first_last=4), {1800: "int4"}),
], ids=["static", "dynamic"])  # fmt: skip
def test_what_takes_fewer_bits_is_packed_in_fewer(stage: Any, expected: dict[int, str], tmp_path: Path) -> None:
    is_static = isinstance(stage, StaticQuantization)
    onnx.save(convolutional() if is_static else linear(), tmp_path / "net.onnx")
    data = IMAGES if is_static else torch.randint(0, 30, (64, 5))
    ctx, reports = reporting_context(tmp_path / "stage", Split([({"x": x}, 0) for x in data]))
    WeightPacking().run(stage.run(OnnxModel(tmp_path / "net.onnx", {}), ctx), replace(ctx, directory=tmp_path / "pack"))
    encodings = {tensor["elements"]: tensor["encoding"] for tensor in reports["packing"]["tensors"]}
    assert {size: encodings[size] for size in expected} == expected


def test_ranges_of_least_squared_error_are_narrower_and_better(quantized: Quantize) -> None:
    data = IMAGES.clone()
    data[::64, 0, 0, 0] = 60.0  # a few values far from all others
    runs = [
        quantized(StaticQuantization(**SAFE, calibration=way), convolutional(), x=data) for way in ("minmax", "mse")
    ]
    minmax, mse = (distance(ran, {"x": IMAGES[1:64]}) for ran in runs)
    assert mse < 0.8 * minmax
    scales = [first_scale(ran.graph) for ran in runs]
    assert scales[1] < 0.98 * scales[0]
    assert scales[0] == pytest.approx((60 - float(data.min())) / 255, rel=1e-3)


def first_scale(graph: onnx.GraphProto) -> float:
    """That of the input."""
    names = [node.input[1] for node in graph.node if node.input[0] == "x"]
    return float(next(numpy_helper.to_array(t) for t in graph.initializer if t.name == names[0]))
