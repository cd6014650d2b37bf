"""Weight-only quantization: what ONNX Runtime gives is what the integers say, by every method, for every operator."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from pipeline.errors import ConfigError, StageError
from pipeline.forms.sandbox.process import DEFAULT
from pipeline.forms.sandbox.session import Outside
from pipeline.measure.cost import onnx_macs, onnx_params
from pipeline.measure.size import payload_bytes, size_bytes
from pipeline.model import OnnxModel
from pipeline.stage import Stage
from pipeline.task import Split
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.pack import WeightPacking
from stages.quantize.quantizing import quantizer
from stages.quantize.weights import WeightQuantization
from tests.aliases import Patch
from tests.contexts import preview_of, reporting_context
from tests.graphs import graph, node
from tests.quantizing import Ran, draw

EXACT = {"compute": "fp32"}
IDS = {"ids": torch.randint(0, 50, (128, 6), generator=torch.Generator().manual_seed(0))}

SPLIT = Split([({"ids": row}, 0) for row in IDS["ids"]])


def reader(width: int = 64) -> onnx.ModelProto:
    """Tokens (N, 6) -> (N, 3): a table, a MatMul with a bias behind, a product of activations, a Gemm."""
    nodes = [
        node("Gather", ["words.weight", "ids"], ["e"], "lookup"),
        node("MatMul", ["e", "w1"], ["h0"], "first"),
        node("Add", ["h0", "first.bias"], ["h1"]),
        node("Relu", ["h1"], ["h2"]),
        node("Transpose", ["h2"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["t", "h2"], ["g"], "inner"),
        node("ReduceMean", ["g"], ["m"], axes=[1], keepdims=0),
        node("Gemm", ["m", "head.weight", "head.bias"], ["output"], "last", transB=1),
    ]
    weights = {"words.weight": draw(50, width), "w1": draw(width, 40), "first.bias": draw(40)}
    weights |= {"head.weight": draw(3, 40), "head.bias": draw(3)}
    proto = graph(nodes, {"ids": (TensorProto.INT64, ["n", 6])}, {"output": ["n", 3]}, weights)
    proto.opset_import[0].version = 17
    return proto


def decoded(part: onnx.GraphProto, codes: str, scales: str, zeros: str, bits: int, width: int) -> np.ndarray:
    """The weight (rows, width) that the constants of a graph stand for, by hand."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in part.initializer}
    steps, mask = 8 // bits, 2**bits - 1

    def numbers(array: np.ndarray) -> np.ndarray:
        return np.stack([(array >> (bits * i)) & mask for i in range(steps)], -1).reshape(len(array), -1)

    scale = values[scales].reshape(len(values[codes]), -1)
    zero: Any = values[zeros] if zeros else np.full(scale.shape, 2 ** (bits - 1))
    zero = numbers(zero.reshape(len(scale), -1))[:, : scale.shape[1]] if zero.dtype == np.uint8 else zero
    every = numbers(values[codes].reshape(len(scale), -1))
    size = 32
    every = np.pad(every, [(0, 0), (0, scale.shape[1] * size - every.shape[1])]).reshape(*scale.shape, size)
    zero = zero.reshape(scale.shape).astype(np.float64)
    return ((every - zero[..., None]) * scale[..., None].astype(np.float64)).reshape(len(scale), -1)[:, :width]


def by_hand(proto: onnx.ModelProto, part: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The weights of `reader` as a quantized graph has them."""
    settings = {n.op_type + n.name: {a.name: a.i for a in n.attribute} for n in part.node}
    table, first, last = (n for n in part.node if n.domain)
    bits = [settings[n.op_type + n.name]["bits"] for n in (table, first, last)]
    width = numpy_helper.to_array(proto.graph.initializer[0]).shape[1]
    zero = [[*n.input][3] if len(n.input) > 3 else "" for n in (table, first, last)]
    return {
        "words.weight": decoded(part, table.input[0], table.input[2], zero[0], bits[0], width),
        "w1": decoded(part, first.input[1], first.input[2], zero[1], bits[1], width).T,
        "head.weight": decoded(part, last.input[1], last.input[2], zero[2], bits[2], 40),
    }


@pytest.mark.parametrize("settings", [
    {"bits": 8}, {"bits": 4}, {"bits": 2}, {"method": "nearest"}, {"method": "nearest", "symmetric": True},
    {"bits": 2, "method": "nearest", "symmetric": True}, {"method": "hqq"}, {"bits": 2, "method": "hqq"},
    {"method": "gptq"}, {"bits": 2, "method": "gptq", "symmetric": True}, {"bits": 2, "layers": {"head": 8}},
], ids=str)  # fmt: skip
def test_the_runtime_computes_with_what_the_integers_stand_for(
    settings: dict[str, Any], quantized: Callable[..., Ran], tmp_path: Path
) -> None:
    proto = reader()
    ran = quantized(WeightQuantization(**EXACT, **settings), proto, **IDS)
    weights = by_hand(proto, ran.graph)
    plain = onnx.ModelProto()
    plain.CopyFrom(proto)
    for tensor in plain.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))
    onnx.save(plain, tmp_path / "plain.onnx")
    expected = OnnxModel(tmp_path / "plain.onnx", IDS).predict(IDS)["output"]
    assert ran.model.predict(IDS)["output"].numpy() == pytest.approx(expected.numpy(), abs=2e-6, rel=1e-4)
    kinds = Counter(n.op_type for n in ran.graph.node)
    assert (kinds["GatherBlockQuantized"], kinds["MatMulNBits"], kinds["MatMul"], kinds["Gather"]) == (1, 2, 1, 0)


def test_what_is_reported_and_counted(quantized: Callable[..., Ran]) -> None:
    ran = quantized(WeightQuantization(method="gptq", layers={"head": 8}), reader(), **IDS)
    layers = ran.report["layers"]
    assert [(entry["node"], entry["weight"], entry["bits"]) for entry in layers] == [
        ("lookup", "words.weight", 4), ("first", "w1", 4), ("last", "head.weight", 8)
    ]  # fmt: skip
    assert ran.report["quantized"] == {"Gather": 1, "Gemm": 1, "MatMul": 1}
    assert ran.report["fp32"]["MatMul"] == 1
    assert ran.report["nearest"] == ["lookup"]
    assert ran.report["fp32_bytes"] == 4 * (40 + 3)
    assert ran.report["calibration_examples"] == 128
    assert all(0 < entry["error"]["weights"] < 0.02 for entry in layers)
    assert "outputs" in layers[1]["error"]
    assert onnx_params(ran.model) == onnx_params(ran.before)
    assert onnx_macs(ran.model) == onnx_macs(ran.before)
    assert payload_bytes(ran.model) < size_bytes(ran.model) < size_bytes(ran.before) / 2


def test_inputs_in_8_bits_are_close(quantized: Callable[..., Ran]) -> None:
    assert quantized(WeightQuantization(bits=8), reader(), **IDS).error < 0.02
    assert quantized(WeightQuantization(bits=4), reader(), **IDS).error < 0.2


def test_gptq_keeps_outputs_better_than_the_nearest(quantized: Callable[..., Ran]) -> None:
    proto = reader()
    errors = [
        quantized(WeightQuantization(**EXACT, method=method, layers={"words": 8}), proto, **IDS).error
        for method in ("gptq", "nearest")
    ]
    assert errors[0] < errors[1]


def test_a_weight_that_nodes_share_is_stored_once(quantized: Callable[..., Ran]) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"], "a"), node("MatMul", ["h", "w"], ["output"], "b")]
    proto = graph(nodes, {"x": ["n", 64]}, {"output": ["n", 64]}, {"w": draw(64, 64)})
    ran = quantized(WeightQuantization(), proto, x=torch.randn(8, 64))
    assert len({n.input[1] for n in ran.graph.node}) == 1
    assert onnx_params(ran.model) == 64 * 64


def test_what_has_no_counterpart_stays_and_is_named(quantized: Callable[..., Ran]) -> None:
    nodes = [
        node("Gather", ["odd", "ids"], ["e"], "odd_table"),
        node("MatMul", ["e", "w"], ["h"], "plain"),
        node("MatMul", ["h", "deep"], ["output"], "deep_one"),
    ]
    weights = {"odd": draw(50, 33), "w": draw(33, 8), "deep": draw(2, 8, 8)}
    proto = graph(nodes, {"ids": (TensorProto.INT64, [2, 6])}, {"output": [2, 6, 8]}, weights)
    onnx_ids = {"ids": IDS["ids"][:2]}
    ran = quantized(WeightQuantization(), proto, **onnx_ids)
    assert ran.report["shape"] == ["odd_table", "deep_one"]
    assert [entry["node"] for entry in ran.report["layers"]] == ["plain"]


def test_a_mask_in_a_table_keeps_it_in_fp32(quantized: Callable[..., Ran]) -> None:
    proto = reader()
    table = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    table[0] = -1e9
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "words.weight"))
    ran = quantized(WeightQuantization(), proto, **IDS)
    assert ran.report["weight"] == ["lookup"]
    assert "lookup" in ran.warnings[0]


def test_operators_and_exclude_are_heard(quantized: Callable[..., Ran]) -> None:
    report = quantized(WeightQuantization(operators=("MatMul",)), reader(), **IDS).report
    assert report["quantized"] == {"MatMul": 1}
    report = quantized(WeightQuantization(exclude=("lookup", "last")), reader(), **IDS).report
    assert report["quantized"] == {"MatMul": 1}


@pytest.mark.parametrize("method", ["k_quant", "gptq"])
def test_a_file_from_outside_gives_the_same_file(method: str, tmp_path: Path) -> None:
    onnx.save(reader(), tmp_path / "net.onnx")
    files = []
    for outside in (None, Outside(limits=DEFAULT)):
        model = OnnxModel(tmp_path / "net.onnx", {}, outside=outside)
        ctx, _ = reporting_context(tmp_path / str(outside is None), SPLIT)
        files.append(WeightQuantization(method=method).run(model, ctx).path.read_bytes())
    differing = sum(a != b for a, b in zip(*files, strict=True))
    # Another process adds products up in another order, and a weight between two integers may become the other one.
    assert differing <= (0 if method == "k_quant" else len(files[0]) // 100)


def test_large_models_keep_their_weights_beside(quantized: Callable[..., Ran], monkeypatch: Patch) -> None:
    proto = reader()
    plain = quantized(WeightQuantization(), proto, **IDS).error
    monkeypatch.setattr(quantizer, "EXTERNAL_DATA_BYTES", 0)
    assert quantized(WeightQuantization(), proto, **IDS).error == pytest.approx(plain)


def check(stage: Stage, before: tuple[Stage, ...] = (), calibration: int = 512) -> list[str]:
    return list(stage.check([*before], preview_of(OnnxModel(Path("x.onnx"), {}), calibration)))


@pytest.mark.parametrize(("settings", "message"), [
    ({"symmetric": True}, "`symmetric` is true, and `method: k_quant` chooses zero points. Set method: nearest"),
    ({"method": "hqq", "bits": 8}, "`method: hqq` with 8 bits .*which ONNX Runtime does not run.*k_quant for 8 bits"),
    ({"method": "hqq", "layers": {"head": 8}}, "`method: hqq` with 8 bits"),
    ({"examples": 10}, "`examples` is given, and method: k_quant reads no calibration data"),
])  # fmt: skip
def test_check_refuses(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(WeightQuantization(**settings))


def test_check_warns_of_what_is_slower_and_of_few_examples() -> None:
    assert check(WeightQuantization()) == check(WeightQuantization(compute="fp32")) == []
    assert "2 bits are slower" in check(WeightQuantization(bits=2))[0]
    assert "hqq is two to three times slower" in check(WeightQuantization(method="hqq"))[0]
    assert "int8 is not" in check(WeightQuantization(bits=8, compute="fp32"))[0]
    assert "calibration uses 20 examples" in check(WeightQuantization(method="gptq"), calibration=20)[0]


def test_it_quantizes_once_and_is_not_packed(quantized: Callable[..., Ran], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="an earlier stage quantizes already"):
        check(DynamicQuantization(), (WeightQuantization(),))
    with pytest.raises(ConfigError, match=r"no more bits than they need\. Leave quantize\.pack out"):
        check(WeightPacking(), (WeightQuantization(),))
    ran = quantized(WeightQuantization(), reader(), **IDS)
    ctx, _ = reporting_context(tmp_path / "again", SPLIT)
    with pytest.raises(StageError, match="quantized already: it has GatherBlockQuantized, MatMulNBits"):
        WeightQuantization().run(ran.model, ctx)
    with pytest.raises(StageError, match="no more bits than they need"):
        WeightPacking().run(ran.model, ctx)


@pytest.mark.parametrize(("settings", "message"), [
    ({"exclude": ("lost",)}, "`exclude` has `lost`, .*did you mean `last`"),
    ({"layers": {"haed": 8}}, "`layers` has `haed`"),
    ({"operators": ("MatMul",), "layers": {"head": 8}}, "`layers` has `head`, and the weight .* is not rounded here"),
])  # fmt: skip
def test_unknown_names_are_errors(settings: dict[str, Any], message: str, quantized: Callable[..., Ran]) -> None:
    with pytest.raises(StageError, match=message):
        quantized(WeightQuantization(**settings), reader(), **IDS)


def test_a_graph_without_products_is_refused_before_work(tmp_path: Path) -> None:
    proto = graph([node("Conv", ["x", "k"], ["y"])], {"x": [1, 1, 8, 8]}, {"y": [1, 2, 6, 6]}, {"k": draw(2, 1, 3, 3)})
    onnx.save(proto, tmp_path / "net.onnx")
    model = OnnxModel(tmp_path / "net.onnx", {})
    with pytest.raises(ConfigError, match="the nodes with weights are 1 Conv, and none of them would be quantized"):
        list(WeightQuantization().reach(model))


@pytest.mark.parametrize(("width", "is_told"), [(64, True), (200, False)])
def test_narrow_products_are_told_before_work(width: int, is_told: bool, tmp_path: Path) -> None:
    proto = graph([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 300]}, {"y": ["n", width]}, {"w": draw(300, width)})
    onnx.save(proto, tmp_path / "net.onnx")
    told = [*WeightQuantization().reach(OnnxModel(tmp_path / "net.onnx", {}))]
    assert any("narrow" in text for text in told) == is_told
