"""What changes nothing goes, and the same comes out; what changes something stays."""

from typing import Any

import numpy as np
import onnx
import pytest

from stages.quantize.packing.idle import drop_clips, drop_idle_attributes
from tests.graphs import graph, node, run

SCALES = {"s": 0.05, "z": np.uint8(0), "half": np.uint8(128), "signed": np.int8(0)}
X = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)


def graph_of(nodes: list[onnx.NodeProto], dims: int = 4, **weights: Any) -> onnx.ModelProto:
    free = ["n", *(f"d{axis}" for axis in range(dims - 1))]
    return graph(nodes, {"x": ["n", 3, 4, 4]}, {"y": free}, SCALES | weights)


def clipped(zero_point: str, extra: list[onnx.NodeProto]) -> onnx.ModelProto:
    told = [zero_point] if zero_point else []
    quantized = [node("QuantizeLinear", ["r", "s", *told], ["q"]), node("DequantizeLinear", ["q", "s", *told], ["d"])]
    last = extra or [node("Identity", ["d"], ["y"])]
    return graph_of([node("Relu", ["x"], ["r"]), *quantized, *last])


@pytest.mark.parametrize(
    ("zero_point", "extra", "goes"),
    [
        ("z", [], True),
        ("", [], True),
        ("half", [], False),
        ("signed", [], False),
        ("z", [node("Add", ["d", "r"], ["y"])], False),
    ],
)
def test_a_relu_goes_where_quantization_clips_at_zero_for_its_only_reader(
    zero_point: str, extra: list[onnx.NodeProto], goes: bool
) -> None:
    proto = clipped(zero_point, extra)
    before = run(proto, X)
    drop_clips(proto.graph)
    assert ("Relu" in {node.op_type for node in proto.graph.node}) is not goes
    np.testing.assert_array_equal(run(proto, X), before)


@pytest.mark.parametrize(
    ("nodes", "weights", "kept"),
    [
        ([node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], count_include_pad=1)], {}, {"kernel_shape"}),
        (
            [node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], count_include_pad=1, pads=[1] * 4)],
            {},
            {"kernel_shape", "count_include_pad", "pads"},
        ),
        ([node("Reshape", ["x", "to"], ["y"], allowzero=1)], {"to": np.array([-1, 48])}, set()),
        ([node("Reshape", ["x", "to"], ["y"], allowzero=0)], {"to": np.array([0, 48])}, {"allowzero"}),
    ],
)
def test_attributes_go_that_say_nothing(nodes: list[onnx.NodeProto], weights: dict[str, Any], kept: set[str]) -> None:
    proto = graph_of(nodes, 2 if weights else 4, **weights)
    before = run(proto, X)
    drop_idle_attributes(proto.graph)
    assert {attribute.name for attribute in proto.graph.node[0].attribute} == kept
    np.testing.assert_array_equal(run(proto, X), before)
