import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from stages.quantize.packing.slim import drop_zero_points, name_constants, shortest, slim
from tests.graphs import graph, node

ZERO = np.uint8(0)


def layer(reader: str = "Conv", activation: int = 0, kind: type[np.number] = np.uint8) -> onnx.ModelProto:
    """x -> quantized -> dequantized -> a convolution or another reader, with a dequantized weight."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "t", "o"], ["v"], axis=0),
        node("Conv", ["d", "v"], ["c"], kernel_shape=[3, 3], name="long name"),
        node(reader, ["d", "v"] if reader == "Conv" else ["d"], ["r"]),
    ]
    weights = {"w": np.ones((2, 2, 3, 3), np.int8), "s": np.float32(0.1), "t": np.ones(2, np.float32)}
    weights |= {"z": kind(activation), "o": np.zeros(2, np.int8)}
    ends = {"x": ["n", 2, 8, 8]}, {"c": ["n", 2, 6, 6], "r": ["n", 2, None, None]}
    return graph(nodes, *ends, weights)


def counts(proto: onnx.ModelProto) -> list[int]:
    return [len(one.input) for one in proto.graph.node if "Linear" in one.op_type]


@pytest.mark.parametrize(("changes", "inputs"), [
    ({}, [2, 2, 2]),
    ({"activation": 3}, [3, 3, 2]),
    ({"kind": np.int8}, [3, 2, 2]),  # without one the type would be uint8
    ({"reader": "Softmax"}, [3, 3, 2]),
])  # fmt: skip
def test_zero_points_of_0_go_where_the_kernels_stay(changes: dict[str, object], inputs: list[int]) -> None:
    proto = layer(**changes)  # type: ignore[arg-type]
    drop_zero_points(proto.graph)
    assert counts(proto) == inputs


@pytest.mark.parametrize(("mover", "inputs"), [("Conv", [2, 2, 2]), ("Transpose", [3, 2, 2])])
def test_what_quantizes_behind_an_operator_that_may_move_keeps_its_zero_point(mover: str, inputs: list[int]) -> None:
    proto = layer()
    first = node(mover, ["x", "k"] if mover == "Conv" else ["x"], ["m"])
    proto.graph.node[0].input[0] = "m"
    proto.graph.node.insert(0, first)
    drop_zero_points(proto.graph)
    assert counts(proto) == inputs


def test_constants_become_initializers() -> None:
    held = node("Constant", [], ["k"], value=numpy_helper.from_array(np.arange(3)))
    proto = graph(
        [held, node("Add", ["x", "k"], ["y"])], {"x": (TensorProto.INT64, [3])}, {"y": (TensorProto.INT64, [3])}
    )
    name_constants(proto.graph)
    assert [one.op_type for one in proto.graph.node] == ["Add"]
    assert [tensor.name for tensor in proto.graph.initializer] == ["k"]
    assert numpy_helper.to_array(proto.graph.initializer[0]).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("numbers", "kind"), [([9216, 3], np.int64), ([-1], np.int64), ([5] * 9, np.int32), ([0.5], np.float32)]
)
def test_whole_numbers_take_as_many_bytes_as_they_need(numbers: list[float], kind: type[np.number]) -> None:
    tensor = numpy_helper.from_array(np.array(numbers, kind), "t")
    short = shortest(tensor)
    assert short.ByteSize() <= tensor.ByteSize()
    assert np.array_equal(numpy_helper.to_array(short), numpy_helper.to_array(tensor))
    assert (short.ByteSize() < tensor.ByteSize()) == (kind is not np.float32 and numbers != [-1])


def test_a_slim_graph_is_valid_and_has_nothing_to_spare() -> None:
    proto = layer()
    proto.producer_name = "someone"
    before = proto.ByteSize()
    slim(proto)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ByteSize() < before - 60
    assert not any(one.name for one in proto.graph.node)
    assert not any(a.name == "kernel_shape" for one in proto.graph.node for a in one.attribute)
    assert [value.name for value in (*proto.graph.input, *proto.graph.output)] == ["x", "c", "r"]
