import numpy as np
import onnx
import onnxruntime

from stages.quantize.rewrite import compact_names, share_initializers, transpose_gemms
from tests import graphs
from tests.graphs import node

RNG = np.random.default_rng(0)


def made(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int | str]) -> onnx.ModelProto:
    return graphs.graph(nodes, {"input": shape}, {"output": shape}, weights)


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["output"], {"input": x})[0])


def with_branches() -> onnx.ModelProto:
    """output = input * 2 where the sum is above 0, else input + bias; the branches read names from outside."""
    name, multiply = "a_long_name_from_outside", {"name": "multiply"}
    then = graphs.graph([node("Mul", [name, "two"], ["a_long_then"], **multiply)], {}, {"a_long_then": None}).graph
    add, bias = node("Add", [name, "bias"], ["a_long_else"], name="add"), {"bias": np.float32(5)}
    other = graphs.graph([add], {}, {"a_long_else": None}, bias).graph
    nodes = [
        node("Identity", ["input"], ["a_long_name_from_outside"], name="first"),
        node("ReduceSum", ["input", ""], ["total"], keepdims=0),
        node("Greater", ["total", "zero"], ["positive"]),
        node("If", ["positive"], ["output"], then_branch=then, else_branch=other),
    ]
    return made(nodes, {"two": np.float32(2), "zero": np.float32(0)}, ["n"])  # type: ignore[dict-item]


def test_compact_names_reaches_into_branches_and_keeps_the_ends() -> None:
    proto, small = with_branches(), with_branches()
    compact_names(small.graph)
    for x in (np.array([1, 2], np.float32), np.array([-1, -2], np.float32)):
        assert np.array_equal(run(proto, x), run(small, x))
    assert small.ByteSize() < proto.ByteSize()
    assert [v.name for v in (*small.graph.input, *small.graph.output)] == ["input", "output"]
    inner = {name for n in small.graph.node for name in (*n.input, *n.output)} - {"input", "output", ""}
    assert all(len(name) == 1 for name in inner)


def test_compact_names_avoids_the_names_of_the_ends() -> None:
    proto = made([node("Add", ["input", "long_name"], ["output"])], {"long_name": np.float32([3])}, [1])
    for side, name in ((proto.graph.input, "b"), (proto.graph.output, "a")):
        side[0].name = name
    proto.graph.node[0].input[0], proto.graph.node[0].output[0] = "b", "a"
    compact_names(proto.graph)
    onnx.checker.check_model(proto)
    assert list(proto.graph.node[0].input) == ["b", "c"]
    assert [t.name for t in proto.graph.initializer] == ["c"]


def qdq(*, zero_is_weight: bool = False) -> onnx.ModelProto:
    """Two quantizations with equal parameters, and one with another scale."""
    nodes, last = [], "input"
    for i, scale in enumerate(("s0", "s1", "s2")):
        nodes.append(node("QuantizeLinear", [last, scale, f"z{i}"], [f"q{i}"]))
        nodes.append(node("DequantizeLinear", [f"q{i}", scale, f"z{i}"], [f"d{i}"]))
        last = f"d{i}"
    nodes.append(node("Mul", [last, "s1" if zero_is_weight else "one"], ["output"]))
    scales = {"s0": np.float32(0.1), "s1": np.float32(0.1), "s2": np.float32(0.2), "one": np.float32(0.1)}
    zeros = {f"z{i}": np.uint8(3) for i in range(3)}
    return made(nodes, {**scales, **zeros}, ["n"])  # type: ignore[dict-item]


def test_equal_scales_and_zero_points_become_one_and_weights_stay() -> None:
    proto, x = qdq(), RNG.normal(size=50).astype(np.float32)
    small = qdq()
    share_initializers(small.graph)
    assert sorted(t.name for t in small.graph.initializer) == ["one", "s0", "s2", "z0"]
    assert len(proto.graph.initializer) == 7
    assert np.array_equal(run(proto, x), run(small, x))


def test_a_scale_that_is_read_elsewhere_is_left_alone() -> None:
    small = qdq(zero_is_weight=True)
    share_initializers(small.graph)
    assert {"s0", "s1", "s2"} <= {t.name for t in small.graph.initializer}


def test_a_weight_that_two_gemms_share_is_transposed_once() -> None:
    weight = RNG.normal(size=(4, 4)).astype(np.float32)
    nodes = [
        node("Gemm", ["input", "w"], ["h"], transB=1),
        node("Gemm", ["h", "w"], ["k"], transB=1),
        node("Gemm", ["k", "w"], ["output"]),
    ]
    proto, x = made(nodes, {"w": weight}, ["n", 4]), RNG.normal(size=(3, 4)).astype(np.float32)
    expected = x @ weight.T @ weight.T @ weight
    assert np.allclose(run(transpose_gemms(proto), x), expected, atol=1e-5)
    assert sorted(t.name for t in proto.graph.initializer) == ["w", "w_transposed"]
    assert not any(attribute.name == "transB" for node in proto.graph.node for attribute in node.attribute)
