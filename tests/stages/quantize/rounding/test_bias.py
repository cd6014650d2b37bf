from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from stages.quantize.rounding.bias import take_off
from tests.graphs import graph, node
from tests.quantizing import draw

SHIFT = np.array([1.0, -2.0, 0.5])
X = draw(4, 5)
WEIGHTS = {"w": draw(5, 3), "b": draw(3), "row": draw(1, 3), "one": draw(1), "square": draw(4, 3)}


def run(proto: onnx.ModelProto) -> Any:
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})


def product(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    return graph(nodes, {"x": [4, 5]}, {"y": [4, 3]}, WEIGHTS)


MATMUL = node("MatMul", ["x", "w"], ["h"], "n")


@pytest.mark.parametrize("nodes", [
    [node("Gemm", ["x", "w", "b"], ["y"], "n")],
    [node("Gemm", ["x", "w", "one"], ["y"], "n")],
    [node("Gemm", ["x", "w"], ["y"], "n")],
    [node("Gemm", ["x", "w", ""], ["y"], "n")],
    [MATMUL, node("Add", ["h", "b"], ["y"])],
    [MATMUL, node("Add", ["row", "h"], ["y"])],
], ids=["bias", "one", "none", "empty", "add", "add-first"])  # fmt: skip
def test_a_shift_is_taken_off(nodes: list[onnx.NodeProto]) -> None:
    proto = product(*nodes)
    (before,) = run(proto)
    assert take_off(proto.graph, next(n for n in proto.graph.node if n.name == "n"), SHIFT)
    np.testing.assert_allclose(run(proto)[0], before - SHIFT, atol=1e-5)


def test_a_convolution_gets_a_bias() -> None:
    nodes = [
        node("Reshape", ["x", "shape"], ["image"]),
        node("Conv", ["image", "kernel"], ["h"], "n"),
        node("ReduceMax", ["h", "axes"], ["y"], keepdims=0),
    ]
    constants = {"shape": np.array([4, 1, 5]), "kernel": draw(3, 1, 2), "axes": np.array([2])}
    proto = graph(nodes, {"x": [4, 5]}, {"y": [4, 3]}, constants)
    (before,) = run(proto)
    assert take_off(proto.graph, proto.graph.node[1], SHIFT)
    np.testing.assert_allclose(run(proto)[0], before - SHIFT, atol=1e-5)


def test_who_shares_a_bias_keeps_it() -> None:
    nodes = [node("Gemm", ["x", "w", "b"], [name], name) for name in ("y", "z")]
    proto = graph(nodes, {"x": [4, 5]}, {"y": [4, 3], "z": [4, 3]}, WEIGHTS)
    before = run(proto)[1]
    assert take_off(proto.graph, proto.graph.node[0], SHIFT)
    y, z = run(proto)
    np.testing.assert_array_equal(z, before)
    np.testing.assert_allclose(y, z - SHIFT, atol=1e-5)


@pytest.mark.parametrize("nodes", [
    [node("MatMul", ["x", "w"], ["y"], "n")],
    [MATMUL, node("Relu", ["h"], ["y"])],
    [MATMUL, node("Add", ["h", "h"], ["y"])],
    [MATMUL, node("Add", ["h", "square"], ["y"])],
    [MATMUL, node("Add", ["h", "b"], ["i"]), node("Add", ["h", "i"], ["y"])],
    [node("Relu", ["b"], ["c"]), node("Gemm", ["x", "w", "c"], ["y"], "n")],
], ids=["output", "relu", "twice", "other-shape", "two-readers", "computed"])  # fmt: skip
def test_without_a_place_nothing_changes(nodes: list[onnx.NodeProto]) -> None:
    proto = product(*nodes)
    before = proto.SerializeToString()
    assert not take_off(proto.graph, next(n for n in proto.graph.node if n.name == "n"), SHIFT)
    assert proto.SerializeToString() == before
