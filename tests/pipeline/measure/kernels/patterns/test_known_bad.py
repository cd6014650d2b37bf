"""Files that public reports say are slow: ONNX Runtime does what the alarm says, and the alarm says what to do."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from pipeline.base.hardware import cpu_flags
from pipeline.measure.kernels.facts import Cpu, Facts, Graph
from pipeline.measure.kernels.kernels import kernels_of
from pipeline.measure.kernels.look import graph_of, look
from pipeline.measure.kernels.patterns.alarm import Alarm
from pipeline.measure.kernels.patterns.known import alarms
from pipeline.model import OnnxModel
from pipeline.records.parts.kernels import Kernels
from tests.qdq import IMAGE, TOKENS, Builder

MAPS = (1, 16, 64, 64)


class Bad(NamedTuple):
    """A pattern, what builds its output in a graph, a node that is to be named, an operator of the graph as it is run.

    `integer` says whether that operator sums integers there, and `remedy` is part of what to do.
    """

    pattern: str
    build: Callable[[Builder], str]
    node: str
    operator: str
    remedy: str
    integer: bool = False
    shape: tuple[int, ...] = IMAGE


def convolutions(b: Builder, act: Callable[[str], str], **ends: Any) -> str:
    value = b.qdq("x", **ends)
    for inputs in (3, 16):
        value = b.qdq(act(b.conv(value, inputs, 16)), **ends)
    return value


def silu(b: Builder) -> Callable[[str], str]:
    return lambda value: b.op("Mul", value, b.op("Sigmoid", value))


def wrong_axis(b: Builder) -> str:
    return b.qdq(b.conv(b.qdq(b.conv(b.qdq("x"), 3, 16)), 16, 16, axis=1))


def moved(b: Builder, operator: str, *numbers: list[int]) -> str:
    value = b.qdq(b.product(b.qdq("x")))
    return b.qdq(b.product(b.op(operator, value, *(b.constant(np.int64(n)) for n in numbers))))


def reshaped_weight(b: Builder) -> str:
    weight = b.op("Reshape", b.weight(128, 32, axis=None), b.constant(np.int64([64, 64])))
    return b.qdq(b.op("MatMul", b.qdq("x"), weight))


def gemm(b: Builder, bias: bool = False, zeros: bool = True) -> str:
    value, weight = b.qdq("x"), b.weight(64, 64, axis=1)
    if not zeros:
        del b.nodes[-1].input[2]
    return b.op("Gemm", value, weight, *([b.floats(64)] if bias else []))


def half_added(b: Builder) -> str:
    one = b.qdq(b.conv(b.qdq("x"), 3, 16))
    other = b.op("Relu", b.op("Conv", "x", b.floats(16, 3, 3, 3), pads=[1] * 4))
    return b.qdq(b.conv(b.qdq(b.op("Add", one, other)), 16, 16))


def signed_residual(b: Builder) -> str:
    value = b.qdq(b.conv(b.qdq("x", np.int8), 3, 16), np.int8)
    return b.qdq(b.op("Add", value, b.qdq(b.conv(value, 16, 16), np.int8)), np.int8)


def recurrent(b: Builder, operator: str, gates: int) -> str:
    weights = b.weight(1, gates * 32, 64, axis=None), b.weight(1, gates * 32, 32, axis=None)
    return b.op(operator, "x", *weights, outputs=2, hidden_size=32)


def eight_bits(b: Builder) -> str:
    blocks = b.constant(b.rng.integers(0, 255, (64, 2, 32)).astype(np.uint8)), b.floats(128)
    return b.op("MatMulNBits", "x", *blocks, domain="com.microsoft", K=64, N=64, bits=8, block_size=32)


def unsigned_weights(b: Builder) -> str:
    value = b.qdq("x")
    for inputs in (3, 16):
        weight = b.weight(16, inputs, 3, 3, axis=None, kind=np.uint8)
        value = b.qdq(b.op("Conv", value, weight, pads=[1] * 4))
    return value


def grouped(b: Builder) -> str:
    return b.qdq(b.conv(b.qdq(b.conv(b.qdq("x"), 16, 64)), 64, 64, group=8))


def norm_between(b: Builder) -> str:
    value = b.qdq(b.op("Relu", "x"))
    value = b.qdq(b.op("LayerNormalization", value, b.floats(64), axis=-1))
    return b.qdq(b.product(value))


def half_precision(b: Builder) -> str:
    value = b.op("Cast", "x", to=10)
    ends = [b.constant(np.int64([n])) for n in (0, 64, 2)]
    for _ in range(3):
        value = b.op("MatMul", value, b.floats(64, 64, kind=np.float16))
        value = b.op("Slice", b.op("Reshape", value, b.constant(np.int64([1, 16, 64]))), *ends)
    return b.op("Cast", value, to=1)


def unfolded_norm(b: Builder) -> str:
    ones = [b.constant(np.ones(16, np.float32)) for _ in range(4)]
    value = b.qdq(b.op("BatchNormalization", b.qdq(b.conv(b.qdq("x"), 3, 16)), *ones))
    return b.qdq(b.conv(value, 16, 16))


def to_and_fro(b: Builder) -> str:
    value, flat = b.op("Transpose", "x", perm=[0, 2, 3, 1]), b.constant(np.int64([1, 4096, 16]))
    for _ in range(3):
        value = b.op("Conv", b.op("Transpose", value, perm=[0, 3, 1, 2]), b.floats(16, 1, 1, 1), group=16)
        value = b.op("Reshape", b.op("Transpose", value, perm=[0, 2, 3, 1]), flat)
        value = b.op("Reshape", b.op("Relu", value), b.constant(np.int64([1, 64, 64, 16])))
    return value


def odd(b: Builder) -> str:
    value = "x"
    for inputs, outputs in ((3, 27), (27, 43), (43, 59)):
        value = b.op("Relu", b.op("Conv", value, b.floats(outputs, inputs, 3, 3), pads=[1] * 4))
    return value


NOTHING: Callable[[str], str] = lambda value: value  # noqa: E731
BAD = {
    "int8 activations on x86": Bad(
        "int8 activations",
        lambda b: convolutions(b, lambda value: b.op("Relu", value), kind=np.int8),
        "`Conv_3`", "FusedConv", "activations: uint8",
    ),
    "int8 activations that two operators read": Bad(
        "int8 activations", signed_residual, "`Conv_3`", "Conv", "activations: uint8"
    ),
    "SiLU between convolutions": Bad(
        "unfused activation", lambda b: convolutions(b, silu(b)), "`Conv_3`", "Conv", "between the two"
    ),
    "HardSwish between convolutions": Bad(
        "unfused activation",
        lambda b: convolutions(b, lambda value: b.op("HardSwish", value)),
        "`Conv_3`", "Conv", "between the two",
    ),
    "GELU between convolutions": Bad(
        "unfused activation",
        lambda b: convolutions(b, lambda value: b.op("Gelu", value)),
        "`Conv_3`", "Conv", "between the two",
    ),
    "Relu with its zero in the middle": Bad(
        "unfused activation",
        lambda b: convolutions(b, lambda value: b.op("Relu", value)),
        "`Conv_3`", "FusedConv", "the least integer",
    ),
    "activations of 16 bits": Bad(
        "16-bit activations", lambda b: convolutions(b, NOTHING, kind=np.uint16), "`Conv_3`", "Conv", "uint8"
    ),
    "no output quantized": Bad(
        "unquantized output", lambda b: b.op("Relu", b.conv(b.qdq("x"), 3, 16)), "`Conv_3`", "FusedConv", "behind it"
    ),
    "a Gemm with a bias and an output of floats": Bad(
        "unquantized output", lambda b: gemm(b, bias=True), "`Gemm_3`", "Gemm", "int32", shape=(1, 64)
    ),
    "a Gemm without zero points": Bad(
        "Gemm without a zero point", lambda b: gemm(b, zeros=False), "`Gemm_3`", "Gemm", "of 0", shape=(1, 64)
    ),
    "Pad between": Bad(
        "cut pair", lambda b: moved(b, "Pad", [0, 1, 0, 0, 1, 0]), "`MatMul_8`", "MatMul", "behind", shape=TOKENS
    ),
    "Tile between": Bad(
        "cut pair", lambda b: moved(b, "Tile", [1, 2, 1]), "`MatMul_8`", "MatMul", "behind", shape=TOKENS
    ),
    "a weight reshaped": Bad("cut pair", reshaped_weight, "`MatMul_4`", "MatMul", "behind", shape=TOKENS),
    "one summand in integers": Bad("one input of two", half_added, "`Add_8`", "Add", "all of its inputs"),
    "weights alone": Bad(
        "weights dequantized at run time",
        lambda b: b.conv(b.op("Relu", b.conv("x", 3, 16)), 16, 16),
        "`Conv_1`", "FusedConv", "quantize.static",
    ),
    "a GRU": Bad(
        "recurrent layer", lambda b: recurrent(b, "GRU", 3), "`GRU_2`", "GRU", "in floats", shape=TOKENS
    ),
    "an LSTM": Bad(
        "recurrent layer", lambda b: recurrent(b, "LSTM", 4), "`LSTM_2`", "LSTM", "DynamicQuantizeLSTM", shape=TOKENS
    ),
    "8-bit weights without accuracy_level": Bad(
        "weights dequantized at run time", eight_bits, "`MatMulNBits_0`", "MatMulNBits", "accuracy_level", shape=TOKENS
    ),
    "weights of uint8": Bad("uint8 weights", unsigned_weights, "`Conv_3`", "QLinearConv", "int8", integer=True),
    "groups of channels": Bad(
        "grouped convolution", grouped, "`Conv_7`", "QLinearConv", "exclude", integer=True, shape=(1, 16, 16, 16)
    ),
    "a norm between conversions": Bad(
        "conversions for nothing", norm_between, "`LayerNormalization_3`", "LayerNormalization", "Leave it out",
        shape=TOKENS,
    ),
    "half precision": Bad("casts of half precision", half_precision, "", "Cast", "weights alone", shape=TOKENS),
    "a norm quantized apart": Bad(
        "unfolded batch normalization", unfolded_norm, "`BatchNormalization_6`", "BatchNormalization",
        "before quantizing",
    ),
    "layouts to and fro": Bad("layout to and fro", to_and_fro, "", "ReorderOutput", "channels first", shape=MAPS),
    "odd widths": Bad("odd widths", odd, "`Conv_4`", "FusedConv", "round_to"),
    "scales along the inputs of a convolution": Bad(
        "scales along a wrong axis", wrong_axis, "`Conv_7`", "QLinearConv", "axis", integer=True
    ),
    "scales along the inputs of a product": Bad(
        "scales along a wrong axis",
        lambda b: b.qdq(b.product(b.qdq("x"), axis=0)),
        "`MatMul_3`", "QLinearMatMul", "axis", integer=True, shape=TOKENS,
    ),
}  # fmt: skip


def alarm_of(kernels: Kernels, pattern: str) -> Any:
    return next((alarm for alarm in kernels.alarms if alarm.pattern == pattern), None)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_raises_an_alarm_that_names_the_node_and_the_remedy(name: str, tmp_path: Path) -> None:
    pattern, build, node, operator, remedy, integer, shape = BAD[name]
    builder = Builder()
    model = builder.model(tmp_path, build(builder), shape)
    kernels = kernels_of(model, model)
    assert any((row.operator, row.integer) == (operator, integer) for row in kernels.operators)
    alarm = alarm_of(kernels, pattern)
    assert alarm, kernels
    assert node in ["", *alarm.nodes]
    assert remedy in alarm.remedy
    for fallback in kernels.floats:
        assert fallback.why


def test_a_convolution_that_was_quantized_dynamically(tmp_path: Path) -> None:
    builder = Builder()
    model = builder.model(tmp_path, builder.op("Conv", "x", builder.floats(16, 3, 3, 3)), IMAGE)
    quantize_dynamic(model.path, tmp_path / "dynamic.onnx", weight_type=QuantType.QUInt8)
    kernels = kernels_of(model, OnnxModel(tmp_path / "dynamic.onnx", model.example))
    assert any(row.operator == "ConvInteger" for row in kernels.operators)
    assert "quantize.static" in alarm_of(kernels, "dynamic convolution").remedy


def of_a_slower_file(builder: Builder, value: str, shape: tuple[int, ...], folder: Path) -> dict[str, Alarm]:
    """The alarms of a file that was found to be slower, by their patterns."""
    model = builder.model(folder, value, shape)
    seen = look(model.path, {"x": model.example["x"].numpy()}, 2, folder / "optimized.onnx")
    facts = Facts(Graph.of(seen["graph"]), Graph.of(graph_of(model.path)), True, {})
    return {alarm.pattern: alarm for alarm in alarms(facts, Cpu(is_x86=True))}


def test_products_that_are_smaller_than_their_conversions(tmp_path: Path) -> None:
    builder = Builder()
    value = builder.qdq("x")
    for _ in range(3):
        value = builder.qdq(builder.op("Relu", builder.product(value, 16, 16)), zero=0)
    alarm = of_a_slower_file(builder, value, (1, 4, 16), tmp_path)["tiny products"]
    assert [node.operator for node in alarm.nodes] == ["QLinearMatMul"] * 3
    assert "in floats" in alarm.remedy


@pytest.mark.skipif("avx512f" not in cpu_flags(), reason="with blocks of 8 channels ONNX Runtime leaves 12 in them")
def test_channels_that_do_not_fill_their_blocks(tmp_path: Path) -> None:
    builder, value = Builder(), "x"
    for inputs, outputs in ((3, 12), (12, 12), (12, 12)):
        value = builder.op("Sigmoid", builder.op("Conv", value, builder.floats(outputs, inputs, 3, 3), pads=[1] * 4))
    alarm = of_a_slower_file(builder, value, IMAGE, tmp_path)["odd widths"]
    assert "round_to" in alarm.remedy


@pytest.mark.parametrize(("bits", "zeros", "remedy"), [(2, None, "4 bits"), (4, np.float32, "k_quant")])
def test_weights_of_few_bits_with_a_slow_kernel(bits: int, zeros: Any, remedy: str, tmp_path: Path) -> None:
    builder = Builder()
    packed = builder.constant(builder.rng.integers(0, 255, (64, 2, 4 * bits)).astype(np.uint8))
    ends = [packed, builder.floats(128), *([builder.constant(np.full(128, 1.5, zeros))] if zeros else [])]
    sizes = {"K": 64, "N": 64, "bits": bits, "block_size": 32, "accuracy_level": 4}
    value = builder.op("MatMulNBits", "x", *ends, domain="com.microsoft", **sizes)
    assert any(remedy in alarm.remedy for alarm in of_a_slower_file(builder, value, TOKENS, tmp_path).values())


def test_scales_along_a_wrong_axis_change_the_answers(tmp_path: Path) -> None:
    """Why that is worth an alarm: square weights are taken, with the scales for other entries than the file says."""
    builder = Builder()
    model = builder.model(tmp_path, wrong_axis(builder), IMAGE)
    plain = OnnxModel(model.path, model.example, optimize=False)
    name = onnx.load(model.path).graph.output[0].name
    before, after = (one.predict(model.example)[name] for one in (plain, model))
    assert (before - after).abs().max() > 0.1 * before.abs().max()
    assert re.search("answers something else", alarm_of(kernels_of(model, model), "scales along a wrong axis").why)
