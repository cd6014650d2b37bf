"""The same network as each tool writes it: its parameters and MACs stay what they are in fp32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

from pipeline.measure.cost import UncountedError, counted_macs, onnx_macs, onnx_params
from pipeline.measure.operators.macs import uncounted
from pipeline.model import OnnxModel
from stages.quantize.quantizing.calibration_data import CalibrationData
from tests.graphs import graph, node

RNG = np.random.default_rng(0)
EXAMPLE = {"x": torch.rand(2, 4, 6, 6)}
PARAMS = 8 * 4 * 9 + 8 + 8 * 8 + 8 + 8 * 64 + 64 * 64
MACS = 36 * 8 * 4 * 9 + 36 * 8 * 8 + 36 * (8 * 64 + 64 * 64)


def draw(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions and two products, one of them with a gelu behind it: (N, 4, 6, 6) -> (N, 36, 64)."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, name="conv"),
        node("Relu", ["c"], ["r"], name="relu"),
        node("Conv", ["r", "v", "d"], ["e"], name="point"),
        node("Reshape", ["e", "shape"], ["f"], name="flat"),
        node("Transpose", ["f"], ["t"], perm=[0, 2, 1], name="turn"),
        node("MatMul", ["t", "m"], ["h"], name="first"),
        node("MatMul", ["h", "n"], ["y"], name="last"),
    ]
    weights = {"w": draw(8, 4, 3, 3), "b": draw(8), "v": draw(8, 8, 1, 1), "d": draw(8), "m": draw(8, 64)}
    weights |= {"n": draw(64, 64), "shape": np.array([0, 8, 36])}
    path = tmp_path_factory.mktemp("macs") / "fp32.onnx"
    onnx.save(graph(nodes, {"x": ["n", 4, 6, 6]}, {"y": ["n", 36, 64]}, weights, ir_version=9), path)
    return path


def loaded(path: Path, level: str) -> Path:
    """What ONNX Runtime makes of a file when it loads it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(path.with_name(f"{path.stem}-{level}.onnx"))
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Path(options.optimized_model_filepath)


def statically(path: Path, kind: QuantFormat, **settings: Any) -> Path:
    target = path.with_name(f"{kind.name}-{len(settings)}.onnx")
    data = CalibrationData(iter([{"x": EXAMPLE["x"].numpy()}]), 1)
    data.allow()
    quantize_static(path, target, data, quant_format=kind, weight_type=QuantType.QInt8, **settings)
    return target


def dynamically(path: Path) -> Path:
    quantize_dynamic(path, path.with_name("dynamic.onnx"), weight_type=QuantType.QInt8)
    return path.with_name("dynamic.onnx")


def in_four_bits(path: Path) -> Path:
    quantizer = MatMulNBitsQuantizer(onnx.load(path), block_size=32, is_symmetric=False)
    quantizer.process()
    quantizer.model.save_model_to_file(str(path.with_name("bits.onnx")))
    return path.with_name("bits.onnx")


FORMS: dict[str, tuple[Callable[[Path], Path], set[str]]] = {
    "fp32, loaded": (lambda path: loaded(path, "EXTENDED"), {"FusedConv"}),
    "QDQ": (lambda path: statically(path, QuantFormat.QDQ, per_channel=True), {"DequantizeLinear"}),
    "QDQ, loaded": (
        lambda path: loaded(statically(path, QuantFormat.QDQ, per_channel=True), "EXTENDED"), {"QLinearConv"},
    ),
    "operators": (lambda path: statically(path, QuantFormat.QOperator), {"QLinearConv", "QLinearMatMul"}),
    "dynamic": (dynamically, {"MatMulInteger", "ConvInteger"}),
    "dynamic, loaded": (lambda path: loaded(dynamically(path), "EXTENDED"), {"DynamicQuantizeMatMul"}),
    "four bits": (in_four_bits, {"MatMulNBits"}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_counts_are_those_of_the_network_in_every_form(form: str, network: Path) -> None:
    make, operators = FORMS[form]
    model = OnnxModel(make(network), EXAMPLE)
    assert operators <= {one.op_type for one in onnx.load(model.path).graph.node}
    assert onnx_macs(model) == MACS
    assert onnx_params(model) == PARAMS


def gemm(folder: Path) -> OnnxModel:
    nodes = [node("Gemm", ["x", "w", "b"], ["h"], transB=1), node("Gemm", ["h", "v"], ["y"])]
    proto = graph(
        nodes, {"x": ["n", 16]}, {"y": ["n", 3]}, {"w": draw(8, 16), "b": draw(8), "v": draw(8, 3)}, ir_version=9
    )
    onnx.save(proto, folder / "gemm.onnx")
    return OnnxModel(folder / "gemm.onnx", {"x": torch.rand(2, 16)})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("per_channel", [True, False])
def test_integer_gemms_count(per_channel: bool, tmp_path: Path) -> None:
    model, data = gemm(tmp_path), CalibrationData(iter([{"x": torch.rand(2, 16).numpy()}]), 1)
    data.allow()
    target = tmp_path / "q.onnx"
    quantize_static(model.path, target, data, quant_format=QuantFormat.QOperator, per_channel=per_channel)
    quantized = OnnxModel(target, model.example)
    assert "QGemm" in {one.op_type for one in onnx.load(target).graph.node}
    assert onnx_macs(quantized) == onnx_macs(model) == 16 * 8 + 8 * 3
    assert onnx_params(quantized) == onnx_params(model) == 16 * 8 + 8 + 8 * 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("per_channel", [True, False])
def test_an_lstm_in_8_bits_has_as_many_parameters(per_channel: bool, tmp_path: Path) -> None:
    weights = {"w": draw(2, 40, 6), "r": draw(2, 40, 10), "b": draw(2, 80)}
    lstm = node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=10, direction="bidirectional")
    proto = graph([lstm], {"x": [5, "n", 6]}, {"y": [5, 2, "n", 10]}, weights, ir_version=9)
    onnx.save(proto, tmp_path / "lstm.onnx")
    quantize_dynamic(tmp_path / "lstm.onnx", tmp_path / "q.onnx", ["LSTM"], per_channel, weight_type=QuantType.QInt8)
    before, after = (OnnxModel(tmp_path / name, {"x": torch.rand(5, 1, 6)}) for name in ("lstm.onnx", "q.onnx"))
    assert {one.op_type for one in onnx.load(after.path).graph.node} == {"DynamicQuantizeLSTM"}
    assert onnx_params(after) == onnx_params(before) == 2 * 40 * (6 + 10 + 2)


def attention(tmp_path: Path, past: bool) -> OnnxModel:
    inputs = ["x", "w", "b", "", *(["past"] if past else [])]
    one = helper.make_node("Attention", inputs, ["y"], domain="com.microsoft", num_heads=2)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    ends: dict[str, Any] = {"x": ["n", 5, 8]} | ({"past": [2, "n", 2, 0, 4]} if past else {})
    proto = graph([one], ends, {"y": ["n", 5, 8]}, {"w": draw(8, 24), "b": draw(24)}, opset_imports=imports)
    onnx.save(proto, tmp_path / "a.onnx")
    return OnnxModel(tmp_path / "a.onnx", {"x": torch.rand(2, 5, 8)})


def test_attention_of_onnx_runtime(tmp_path: Path) -> None:
    assert onnx_macs(attention(tmp_path, past=False)) == 5 * 8 * 24 + 2 * 5 * 5 * 8
    assert counted_macs(attention(tmp_path, past=True)) == (None, "the MACs of `Attention` are not known")


def inside(kind: str) -> onnx.ModelProto:
    """A product inside a branch."""
    shape = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    body = helper.make_graph([node(kind, ["x", "w"], ["o"])], "body", [], [shape])
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Cast", ["s"], ["is"], to=TensorProto.BOOL),
        node("If", ["is"], ["y"], then_branch=body, else_branch=body),
    ]
    return graph(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, {"w": draw(4, 4)})


def function(operator: str) -> onnx.ModelProto:
    """A product inside a function of the file's own."""
    opset = helper.make_opsetid("", 20)
    body = helper.make_function("own", "Own", ["a", "b"], ["c"], [node(operator, ["a", "b"], ["c"])], [opset])
    proto = graph(
        [helper.make_node("Own", ["x", "w"], ["y"], domain="own")], {"x": ["n", 4]}, {"y": ["n", 4]}, {"w": draw(4, 4)},
        opset_imports=[opset, helper.make_opsetid("own", 1)],
    )  # fmt: skip
    proto.functions.append(body)
    return proto


def own(operator: str, domain: str) -> onnx.ModelProto:
    one = helper.make_node(operator, ["x", "w"], ["y"], domain=domain)
    return graph([one], {"x": ["n", 4]}, {"y": ["n", 4]}, {"w": draw(4, 4)})


@pytest.mark.parametrize(("proto", "names"), [
    (inside("MatMul"), "`MatMul` inside `If`"),
    (own("Sum3", "own"), "`Sum3`"),
    (own("MoE", "com.microsoft"), "`MoE`"),
], ids=["in a branch", "of an unknown domain", "of experts"])  # fmt: skip
def test_an_operator_that_is_not_known_is_named(proto: onnx.ModelProto, names: str, tmp_path: Path) -> None:
    onnx.save(proto, tmp_path / "m.onnx")
    model = OnnxModel(tmp_path / "m.onnx", {"x": torch.rand(2, 4)})
    assert counted_macs(model) == (None, f"the MACs of {names} are not known")
    with pytest.raises(UncountedError, match=names):
        onnx_macs(model)


@pytest.mark.parametrize("proto", [inside("Add"), function("Add")], ids=["branch", "function"])
def test_what_sums_no_products_is_no_mystery(proto: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(proto, tmp_path / "m.onnx")
    assert counted_macs(OnnxModel(tmp_path / "m.onnx", {"x": torch.rand(2, 4)})) == (0, None)


def test_a_function_of_the_file_counts_by_its_body(tmp_path: Path) -> None:
    onnx.save(function("MatMul"), tmp_path / "m.onnx")
    assert onnx_macs(OnnxModel(tmp_path / "m.onnx", {"x": torch.rand(2, 4)})) == 16


def test_elementwise_operators_with_constants_are_known() -> None:
    nodes = [node("Add", ["x", "w"], ["h"]), node("Gather", ["w", "i"], ["g"]), node("Mul", ["h", "g"], ["y"])]
    assert uncounted(graph(nodes, {"x": [4, 4]}, {"y": [4, 4]}, {"w": draw(4, 4), "i": np.array(1)}).graph) == []
