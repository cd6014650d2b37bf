"""Equalized layers: the same outputs, and the same largest weight of each channel on both sides."""

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from stages.quantize.balance.channels import inputs, outputs
from stages.quantize.balance.equalize import equalize
from tests.graphs import graph, node, run

RNG = np.random.default_rng(0)


def planted(*shape: int) -> Any:
    """Weights whose first axis has very different sizes."""
    return RNG.normal(size=shape) * np.exp(RNG.normal(size=shape[0]) * 2).reshape(-1, *[1] * (len(shape) - 1))


def images() -> onnx.ModelProto:
    """Convolutions, a depthwise one, a pooling, a Flatten, a Gemm, a MatMul with a bias: (N, 3, 8, 8) -> (N, 5)."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "first", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "depthwise", pads=[1, 1, 1, 1], group=8),
        node("LeakyRelu", ["c2"], ["r2"], alpha=0.1),
        node("MaxPool", ["r2"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p", "w3"], ["c3"], "third"),
        node("Relu", ["c3"], ["r3"]),
        node("Flatten", ["r3"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["g"], "fourth", transB=1),
        node("Relu", ["g"], ["r4"]),
        node("MatMul", ["r4", "w5"], ["m"], "fifth"),
        node("Add", ["m", "b5"], ["a"]),
        node("Relu", ["a"], ["r5"]),
        node("Gemm", ["r5", "w6"], ["y"], "last"),
    ]
    weights = {"w1": planted(8, 3, 3, 3), "b1": RNG.normal(size=8) * 0.01, "w2": planted(8, 1, 3, 3)}
    weights |= {"b2": np.zeros(8), "w3": planted(6, 8, 1, 1), "w4": planted(7, 96), "b4": np.zeros(7)}
    weights |= {"w5": planted(7, 9), "b5": RNG.normal(size=9) * 0.01, "w6": planted(9, 5)}
    return graph(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 5]}, weights)


def test_outputs_stay_and_channels_meet_in_the_middle() -> None:
    proto = images()
    x = RNG.normal(size=(4, 3, 8, 8)).astype(np.float32)
    before = run(proto, x)
    assert equalize(proto.graph) == ["depthwise", "third", "fourth", "fifth", "last"]
    assert np.abs(run(proto, x) - before).max() < 1e-4 * np.abs(before).max()
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    layers = [n for n in proto.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    spread = {"fourth": 16}
    for first, second in pairwise(layers):
        a, b = outputs(first, arrays[first.input[1]]), inputs(second, arrays[second.input[1]])
        b = b.reshape(-1, spread.get(second.name, 1)).max(1)
        if first.name not in ("first", "fifth"):  # whose biases hold factors back
            assert a == pytest.approx(b, rel=0.02)


def test_two_layers_are_the_closed_form() -> None:
    w1, w2 = planted(6, 4), RNG.normal(size=(3, 6))
    nodes = [node("Gemm", ["x", "a"], ["h"], transB=1), node("Gemm", ["h", "b"], ["y"], transB=1)]
    proto = graph(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"a": w1, "b": w2})
    equalize(proto.graph)
    factors = np.sqrt(np.abs(w1).max(1) / np.abs(w2).max(0))  # eq. 11
    a, b = (numpy_helper.to_array(tensor) for tensor in proto.graph.initializer)
    assert a == pytest.approx(w1 / factors[:, None], rel=1e-4)
    assert b == pytest.approx(w2 * factors, rel=1e-4)


def test_a_large_bias_of_a_small_channel_does_not_grow() -> None:
    w1, b1 = np.ones((3, 4)), np.array([0.1, 1.0, 1.0])
    w1[2] = 1e-6
    nodes = [node("Gemm", ["x", "a", "c"], ["h"], transB=1), node("Gemm", ["h", "b"], ["y"], transB=1)]
    proto = graph(nodes, {"x": ["n", 4]}, {"y": ["n", 2]}, {"a": w1, "c": b1, "b": np.ones((2, 3))})
    equalize(proto.graph)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    assert np.abs(values["c"]).max() <= 1.001


def test_a_shared_bias_becomes_two() -> None:
    nodes = [node("Gemm", ["x", "a", "c"], ["h"], "one"), node("Gemm", ["h", "b", "c"], ["y"], "two")]
    weights = {"a": planted(4, 4), "b": planted(4, 4), "c": RNG.normal(size=4)}
    proto = graph(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, weights)
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    before = run(proto, x)
    equalize(proto.graph)
    assert run(proto, x) == pytest.approx(before, rel=1e-4, abs=1e-4)
    assert len(proto.graph.initializer) == 4


@pytest.mark.parametrize("between", [
    [node("Sigmoid", ["h"], ["k"])],
    [node("Clip", ["h", "low", "high"], ["k"])],
    [node("Relu", ["h"], ["k"]), node("Identity", ["k"], ["seen"])],
    [node("Transpose", ["h"], ["k"], perm=[0, 1])],
    [node("Softmax", ["h"], ["k"])],
], ids=lambda nodes: nodes[0].op_type + str(len(nodes)))  # fmt: skip
def test_what_a_factor_does_not_go_through_is_left(between: list[onnx.NodeProto]) -> None:
    nodes = [node("Gemm", ["x", "a"], ["h"]), *between, node("Gemm", ["k", "b"], ["y"])]
    ends = {"x": ["n", 4]}, {"y": ["n", 4], **({"seen": ["n", 4]} if len(between) > 1 else {})}
    weights = {"a": planted(4, 4), "b": planted(4, 4), "low": np.float32(0), "high": np.float32(6)}
    assert equalize(graph(nodes, *ends, weights).graph) == []


def test_a_weight_that_is_read_twice_is_left() -> None:
    nodes = [node("Gemm", ["x", "a"], ["h"]), node("Gemm", ["h", "a"], ["y"])]
    assert equalize(graph(nodes, {"x": ["n", 4]}, {"y": ["n", 4]}, {"a": planted(4, 4)}).graph) == []


@pytest.mark.parametrize(("shape", "is_flat"), [([0, -1], True), ([-1, 64], True), ([-1, 8], False), ([8, -1], False)])
def test_a_reshape_that_tears_channels_is_left(shape: list[int], is_flat: bool) -> None:
    nodes = [node("Conv", ["x", "a"], ["h"]), node("Reshape", ["h", "shape"], ["k"]), node("MatMul", ["k", "b"], ["y"])]
    width = 64 if is_flat else 8
    weights = {"a": planted(8, 3, 1, 1), "b": planted(width, 2), "shape": np.array(shape)}
    proto = graph(nodes, {"x": ["n", 3, 1, 8]}, {"y": ["m", 2]}, weights)
    proto = onnx.shape_inference.infer_shapes(proto)
    x = RNG.normal(size=(2, 3, 1, 8)).astype(np.float32)
    before = None if shape == [8, -1] else run(proto, x)
    assert bool(equalize(proto.graph)) == is_flat
    if before is not None:
        assert run(proto, x) == pytest.approx(before, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(("axes", "is_all"), [([2], True), ([-1], True), ([1], False), ([-2, -1], False)])
def test_a_mean_is_of_all_that_is_behind_the_channels(axes: list[int], is_all: bool) -> None:
    nodes = [node("Conv", ["x", "a"], ["h"]), node("ReduceMean", ["h", "axes"], ["k"], keepdims=0)]
    nodes.append(node("MatMul", ["k", "b"], ["y"]))
    proto = graph(nodes, {"x": ["n", 3, 8]}, {"y": None}, {"a": planted(8, 3, 1), "b": planted(8, 2), "axes": axes})
    assert bool(equalize(proto.graph)) == is_all
