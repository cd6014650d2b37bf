import numpy as np
import onnx
import pytest

from stages.quantize.graphs.rewrite import (
    plain_gemms,
    share_initializers,
    transpose_gemms,
)
from tests.graphs import mapping, node, run

RNG = np.random.default_rng(0)


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
    return mapping(nodes, {**scales, **zeros}, ["n"])


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
    proto, x = mapping(nodes, {"w": weight}, ["n", 4]), RNG.normal(size=(3, 4)).astype(np.float32)
    expected = x @ weight.T @ weight.T @ weight
    assert np.allclose(run(transpose_gemms(proto), x), expected, atol=1e-5)
    assert sorted(t.name for t in proto.graph.initializer) == ["w", "w_transposed"]
    assert not any(attribute.name == "transB" for node in proto.graph.node for attribute in node.attribute)


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("shape", [(1, 4), (4,), (1,), (1, 1), ()])
def test_a_gemm_gets_one_number_a_channel_and_no_factors(shape: tuple[int, ...], transposed: int) -> None:
    weights = {"w": RNG.normal(size=(4, 4)).astype(np.float32), "b": RNG.normal(size=shape).astype(np.float32)}
    nodes = [
        node("Gemm", ["input", "w", "b"], ["h"], transB=transposed, alpha=0.5, beta=2.0),
        node("Add", ["h", "b"], ["output"]),  # reads the bias as it was
    ]
    proto, x = mapping(nodes, weights, ["n", 4]), RNG.normal(size=(3, 4)).astype(np.float32)
    expected = run(proto, x)
    plain_gemms(proto.graph)
    assert np.allclose(run(proto, x), expected)
    (bias,) = (t for t in proto.graph.initializer if t.name == proto.graph.node[0].input[2])
    assert list(bias.dims) == [4]
    assert {a.name for a in proto.graph.node[0].attribute} <= {"transB"}
