"""Rewritten graphs against loops over pairs, and against ONNX Runtime where this CPU has VNNI."""

import copy
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pipeline.base.hardware import cpu_flags, saturates
from pipeline.measure.isa.errors import UnknownError
from pipeline.measure.isa.graphs.rewrite import COUNTS, Rewriting, output_of
from tests import graphs
from tests.integers import (
    convolution,
    model_of,
    product_of,
    requantized,
    run,
    saturated,
    values,
    weights,
    windows,
)

exact_here = pytest.mark.skipif(saturates(cpu_flags()), reason="its own sums saturate")


def rewritten(proto: Any, **how: Any) -> Any:
    result = copy.deepcopy(proto)
    rewriting = Rewriting(result, **{"saturates": True, **how})
    assert rewriting.products
    return result


def answers(proto: Any, x: Any) -> tuple[Any, Any]:
    """Where pairs saturate and where not."""
    return run(rewritten(proto), x)[0], run(rewritten(proto, saturates=False), x)[0]


def test_one_product_in_closed_form() -> None:
    proto = model_of("MatMulInteger", ["x", "w"], {"w": np.array([[127], [127]], np.int8)}, TensorProto.INT32)
    for first, second in ((255, 255), (255, 3), (129, 130), (0, 255), (0, 0)):
        exact = 127 * (first + second)
        there, here = answers(proto, np.array([[first, second]], np.uint8))
        assert (there.item(), here.item()) == (min(exact, 32767), exact)
    negative = model_of("MatMulInteger", ["x", "w"], {"w": np.array([[-128], [-128]], np.int8)}, TensorProto.INT32)
    assert [y.item() for y in answers(negative, np.array([[255, 255]], np.uint8))] == [-32768, -65280]


@pytest.mark.parametrize(("shape", "attributes"), [
    ((8, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    ((6, 8, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ((4, 5, 3, 3), {"pads": [1, 1, 1, 1], "group": 2}),
    ((4, 6, 2, 2), {"dilations": [2, 2], "group": 2}),
    ((9, 16, 1, 1), {}),
    ((5, 7, 1, 1), {"strides": [2, 2]}),
    ((16, 1, 3, 3), {"group": 8, "pads": [1, 1, 1, 1]}),
    ((70, 4, 3, 3), {}),
])  # fmt: skip
def test_a_convolution(shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    generator, groups = np.random.default_rng(0), attributes.get("group", 1)
    proto, constants = convolution(generator, shape, **attributes)
    x = values(generator, 2, shape[1] * groups, 6, 6)
    how = {"stride": "strides", "pad": "pads", "dilation": "dilations"}
    settings = {key: attributes[name][0] for key, name in how.items() if name in attributes}
    for saturates_there, given in zip((True, False), answers(proto, x), strict=True):
        parts = []
        for some, weight in zip(np.split(x, groups, 1), np.split(constants["w"], groups), strict=True):
            columns, (height, width) = windows(some, shape[2], 7, **settings)
            matrix = weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))
            parts.append(product_of(columns, matrix, 7, saturates_there))
        sums = np.concatenate(parts, 1) + constants["b"]
        scale = constants["xs"] * constants["ws"] / constants["ys"]
        expected = requantized(sums, scale, 120).reshape(2, height, width, -1).transpose(0, 3, 1, 2)
        assert (given == expected).all()
    assert (answers(proto, x)[0] != answers(proto, x)[1]).any()


@pytest.mark.parametrize("zero", [np.int8(0), np.int8(3), np.arange(-4, 5, dtype=np.int8)])
@pytest.mark.parametrize("shape", [(5, 64), (2, 3, 33), (1, 7)])
def test_a_matrix_product(shape: tuple[int, ...], zero: Any) -> None:
    generator = np.random.default_rng(1)
    weight, x = weights(generator, shape[-1], 9), values(generator, *shape)
    constants = {"w": weight, "xz": np.uint8(9), "wz": zero}
    proto = model_of("MatMulInteger", ["x", "w", "xz", "wz"], constants, TensorProto.INT32)
    flat = x.reshape(-1, shape[-1])
    off = (flat.astype(np.int64) - 9).sum(1, keepdims=True) * zero.astype(np.int64)
    for saturates_there, given in zip((True, False), answers(proto, x), strict=True):
        assert (given.reshape(-1, 9) == product_of(flat, weight, 9, saturates_there) - off).all()


@pytest.mark.parametrize("has_scale", [True, False])
def test_a_gemm(has_scale: bool) -> None:
    generator = np.random.default_rng(2)
    weight, x = weights(generator, 9, 63), values(generator, 4, 63)
    scales = generator.uniform(0.001, 0.002, 9).astype(np.float32)
    constants = {"w": weight, "xs": np.float32(0.01), "xz": np.uint8(9), "ws": scales, "wz": np.zeros(9, np.int8)}
    constants |= {"c": generator.integers(-999, 999, 9).astype(np.int32)}
    names = ["x", "xs", "xz", "w", "ws", "wz", "c"]
    if has_scale:
        constants |= {"ys": np.float32(0.5), "yz": np.uint8(100)}
        names += ["ys", "yz"]
    kind = TensorProto.UINT8 if has_scale else TensorProto.FLOAT
    proto = model_of("QGemm", names, constants, kind, transB=1, alpha=0.5)
    for saturates_there, given in zip((True, False), answers(proto, x), strict=True):
        sums = product_of(x, weight.T, 9, saturates_there) + constants["c"]
        scale = np.float32(0.5) * np.float32(0.01) * scales
        expected = requantized(sums, scale / np.float32(0.5), 100) if has_scale else sums.astype(np.float32) * scale
        assert np.array_equal(given, expected) if has_scale else np.allclose(given, expected, rtol=1e-6)


def test_a_product_with_ranges_measured_at_each_call() -> None:
    generator = np.random.default_rng(3)
    weight = weights(generator, 64, 9)
    scales = generator.uniform(0.001, 0.002, 9).astype(np.float32)
    constants = {"w": weight, "ws": scales, "b": generator.normal(size=9).astype(np.float32)}
    proto = model_of("DynamicQuantizeMatMul", ["x", "w", "ws", "", "b"], constants, TensorProto.FLOAT)
    x = generator.normal(1, 1, (6, 64)).astype(np.float32)
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
    zero = int(np.rint(-np.float32(low) / scale))
    integers = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
    for saturates_there, given in zip((True, False), answers(proto, x), strict=True):
        expected = product_of(integers, weight, zero, saturates_there) * (scale * scales) + constants["b"]
        assert np.allclose(given, expected, rtol=1e-5, atol=1e-5)


@exact_here
def test_exact_sums_are_what_this_cpu_answers_to_the_bit() -> None:
    generator = np.random.default_rng(4)
    proto, _ = convolution(generator, (16, 8, 3, 3), pads=[1, 1, 1, 1])
    x = values(generator, 2, 8, 9, 9)
    assert (answers(proto, x)[1] == run(proto, x)[0]).all()


def test_a_weight_of_more_pairs_than_floats_add_exactly() -> None:
    weight = np.full((2400, 2), 127, np.int8)
    weight[:, 1] = -127
    proto = model_of("MatMulInteger", ["x", "w"], {"w": weight}, TensorProto.INT32)
    x = np.random.default_rng(5).integers(250, 256, (2, 2400)).astype(np.uint8)
    assert (answers(proto, x)[0] == saturated(x, weight)).all()


def test_what_cannot_saturate_stays_as_it_is() -> None:
    generator = np.random.default_rng(6)
    depthwise, _ = convolution(generator, (8, 1, 3, 3), group=8)
    narrow = model_of("MatMulInteger", ["x", "w"], {"w": np.full((8, 2), 64, np.int8)}, TensorProto.INT32)
    unsigned = model_of("MatMulInteger", ["x", "w"], {"w": np.full((8, 2), 255, np.uint8)}, TensorProto.INT32)
    window = model_of("ConvInteger", ["x", "w"], {"w": np.full((2, 8, 1, 1), 127, np.int8)}, TensorProto.INT32)
    several = model_of("MatMulInteger", ["x", "w"], {"w": np.full((2, 8, 2), 64, np.int8)}, TensorProto.INT32)
    for proto in (depthwise, narrow, unsigned, window, several):
        before = proto.SerializeToString()
        assert not Rewriting(proto, saturates=True).products
        assert proto.SerializeToString() == before


def test_signed_values_stay_as_they_are_and_are_refused_where_they_would_be_others(monkeypatch: Any) -> None:
    constants = {"w": weights(np.random.default_rng(0), 8, 3), "z": np.int8(0)}
    proto = model_of("MatMulInteger", ["x", "w", "z"], constants, TensorProto.INT32)
    assert not Rewriting(copy.deepcopy(proto), saturates=True).products
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(UnknownError, match="are int8, which ONNX Runtime makes uint8 on x86 alone"):
        Rewriting(proto, saturates=True)


def test_one_layer_can_be_exact_alone() -> None:
    generator = np.random.default_rng(7)
    proto, _ = convolution(generator, (4, 8, 3, 3))
    x = values(generator, 1, 8, 5, 5)
    assert (run(rewritten(proto, exact=["it"]), x)[0] == answers(proto, x)[1]).all()


def test_counts_are_those_of_a_loop() -> None:
    generator = np.random.default_rng(8)
    weight, x = weights(generator, 65, 40), values(generator, 7, 65)
    proto = model_of("MatMulInteger", ["x", "w"], {"w": weight}, TensorProto.INT32)
    _, *counts = run(rewritten(proto, counted=True), x)
    padded, rows = np.pad(weight.astype(int), ((0, 1), (0, 0))), np.pad(x.astype(int), ((0, 0), (0, 1)))
    sums = rows[:, ::2, None] * padded[None, ::2] + rows[:, 1::2, None] * padded[None, 1::2]
    taken = np.clip(sums, -32768, 32767).sum(1) - sums.sum(1)
    expected = ((sums > 32767) | (sums < -32768)).sum(), sums.size, (taken**2).sum(), (sums.sum(1) ** 2).sum()
    assert [float(count.item()) for count in counts] == [float(number) for number in expected]
    names = [value.name for value in rewritten(proto, counted=True).graph.output]
    assert names == ["y", *(output_of(0, count) for count in COUNTS)]


def test_products_in_graphs_inside_nodes_are_rewritten_too() -> None:
    weight = np.full((2, 1), 127, np.int8)
    node = graphs.node("MatMulInteger", ["x", "w"], ["z"], name="inner")
    body = onnx.helper.make_graph([node], "then", [], [graphs.port("z", None, TensorProto.INT32)])
    other = graphs.node("Cast", ["x"], ["o"], to=TensorProto.INT32)
    rest = onnx.helper.make_graph([other], "else", [], [graphs.port("o", None, TensorProto.INT32)])
    branch = graphs.node("If", ["c"], ["y"], then_branch=body, else_branch=rest)
    inputs = {"x": (TensorProto.UINT8, None)}
    proto = graphs.graph([branch], inputs, {"y": (TensorProto.INT32, None)}, {"w": weight, "c": np.array(True)})
    assert run(rewritten(proto), np.array([[255, 255]], np.uint8))[0].item() == 32767


@pytest.mark.parametrize(("is_first", "answer"), [(True, 127 * 510), (False, 100 * 510)])
def test_branches_may_use_one_name_for_constants_of_their_own(is_first: bool, answer: int) -> None:
    def branch(name: str, weight: int) -> Any:
        node = graphs.node("MatMulInteger", ["x", "w"], [name], name=f"of {name}")
        constant = onnx.numpy_helper.from_array(np.full((2, 1), weight, np.int8), "w")
        return onnx.helper.make_graph([node], name, [], [graphs.port(name, None, TensorProto.INT32)], [constant])

    either = graphs.node("If", ["c"], ["y"], then_branch=branch("first", 127), else_branch=branch("second", 100))
    inputs = {"x": (TensorProto.UINT8, None)}
    proto = graphs.graph([either], inputs, {"y": (TensorProto.INT32, None)}, {"c": np.array(is_first)})
    assert [y.item() for y in answers(proto, np.array([[255, 255]], np.uint8))] == [32767, answer]


@pytest.mark.parametrize("operator", ["DynamicQuantizeLSTM", "QAttention"])
def test_operators_of_which_it_is_not_known_are_refused(operator: str) -> None:
    proto = model_of(operator, ["x", "w"], {"w": np.full((8, 2), 127, np.int8)}, TensorProto.FLOAT)
    with pytest.raises(UnknownError, match=f"`it` is {operator}, of which it is not known what it answers on another"):
        Rewriting(proto, saturates=True)


def test_padding_by_the_size_of_the_input_and_values_that_vary_are_refused() -> None:
    proto, _ = convolution(np.random.default_rng(9), (4, 8, 3, 3), auto_pad="SAME_UPPER")
    with pytest.raises(UnknownError, match=r"`it` has SAME_UPPER for its padding; expected numbers. Export it with"):
        Rewriting(proto, saturates=True)
    ends = {"x": (TensorProto.UINT8, None), "w": (TensorProto.INT8, None)}
    node = graphs.node("MatMulInteger", ["x", "w"], ["y"], name="it")
    several = model_of("MatMulInteger", ["x", "w"], {"w": np.full((2, 8, 2), 65, np.int8)}, TensorProto.INT32)
    with pytest.raises(UnknownError, match=r"the weight of `it`.*has 3 axes; expected two"):
        Rewriting(several, saturates=True)
    varying = graphs.graph([node], ends, {"y": (TensorProto.INT32, None)})
    with pytest.raises(UnknownError, match="multiplies with int8 values that are not constant"):
        Rewriting(varying, saturates=True)
