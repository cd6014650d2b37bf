"""What would be quantized is told by operators and weights, through what only moves a weight."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pipeline.errors import ConfigError
from pipeline.model import OnnxModel
from stages.quantize.graphs.reach import reached


@pytest.fixture
def model(tmp_path: Path) -> OnnxModel:
    """Two products and a convolution with weights, one transposed in the graph, and a product of activations."""
    shapes = {"a.weight": (4, 4), "b.weight": (4, 4), "c.weight": (1, 1, 1, 1), "bias": (4,)}
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()]
    nodes = [
        helper.make_node("Transpose", ["b.weight"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "a.weight"], ["y"], name="first"),
        helper.make_node("Gemm", ["y", "turned", "bias"], ["z"], name="second"),
        helper.make_node("MatMul", ["z", "y"], ["scores"], name="scores"),
        helper.make_node("Reshape", ["scores", "shape"], ["map"]),
        helper.make_node("Conv", ["map", "c.weight"], ["out"], name="third"),
    ]
    floats = onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info("x", floats, [4, 4])], [helper.make_tensor_value_info("out", floats, None)]
    shape = numpy_helper.from_array(np.array([1, 1, 4, 4]), "shape")
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", *ends, [*weights, shape])), tmp_path / "net.onnx")
    return OnnxModel(tmp_path / "net.onnx", {})


@pytest.mark.parametrize(("operators", "exclude", "told"), [
    (["MatMul"], [], "quantizes 1 MatMul, 1 Gemm (`a.weight`, `b.weight`); 1 Conv (`c.weight`) stays in fp32"),
    (["Gemm"], ["first"], "quantizes 1 Gemm (`b.weight`); 1 MatMul, 1 Conv (`a.weight`, `c.weight`) stay in fp32"),
    (["MatMul", "Conv"], [], "quantizes 1 MatMul, 1 Gemm, 1 Conv (`a.weight`, `b.weight`, `c.weight`)"),
])  # fmt: skip
def test_nodes_with_weights_are_told(model: OnnxModel, operators: list[str], exclude: list[str], told: str) -> None:
    assert [*reached(model, operators, exclude)] == [told]


def test_nodes_without_names_are_left_out_by_those_that_they_get(model: OnnxModel) -> None:
    proto = onnx.load(model.path)
    for node in proto.graph.node:
        node.name = ""
    onnx.save(proto, model.path)
    told = "quantizes 1 MatMul (`a.weight`); 1 Gemm, 1 Conv (`b.weight`, `c.weight`) stay in fp32"
    assert [*reached(model, ["MatMul", "Gemm"], ["Gemm_2"])] == [told]


def test_a_graph_of_other_operators_is_refused(model: OnnxModel) -> None:
    with pytest.raises(ConfigError, match=r"1 MatMul, 1 Gemm, 1 Conv, and none .*; expected some of `operators` \(LST"):
        list(reached(model, ["LSTM"]))
