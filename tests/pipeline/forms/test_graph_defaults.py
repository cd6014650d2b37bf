"""Attributes with their default values leave a graph, and it computes the same."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from pipeline.forms.graph import drop_defaults
from tests import graphs

OPSET = 20
RNG = np.random.default_rng(0)
IMAGE = RNG.standard_normal((2, 3, 9, 9)).astype(np.float32)
ROWS = RNG.standard_normal((4, 5)).astype(np.float32)
WEIGHT = RNG.standard_normal((6, 3, 3, 3)).astype(np.float32)
TABLE = RNG.standard_normal((6, 5)).astype(np.float32)

CASES: dict[str, tuple[str, dict[str, Any], list[np.ndarray], dict[str, Any]]] = {
    "a convolution as the exporter writes it": (
        "Conv",
        {"auto_pad": "NOTSET", "dilations": [1, 1], "group": 1, "kernel_shape": [3, 3], "pads": [0] * 4}
        | {"strides": [1, 1]},
        [IMAGE, WEIGHT],
        {"kernel_shape": [3, 3]},
    ),
    "a convolution with settings": (
        "Conv",
        {"dilations": [2, 1], "pads": [0, 1, 0, 1], "strides": [2, 2]},
        [IMAGE, WEIGHT],
        {"dilations": [2, 1], "pads": [0, 1, 0, 1], "strides": [2, 2]},
    ),
    "pooling": (
        "MaxPool",
        {"ceil_mode": 1, "kernel_shape": [2, 2], "pads": [0] * 4, "storage_order": 0, "strides": [2, 2]},
        [IMAGE],
        {"ceil_mode": 1, "kernel_shape": [2, 2], "strides": [2, 2]},
    ),
    "a product": ("Gemm", {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}, [ROWS, TABLE], {"transB": 1}),
    "a scaled product": ("Gemm", {"alpha": 0.5, "transB": 1}, [ROWS, TABLE], {"alpha": 0.5, "transB": 1}),
    "the last axis": ("Softmax", {"axis": -1}, [ROWS], {}),
    "another axis": ("Softmax", {"axis": 0}, [ROWS], {"axis": 0}),
    "an attribute without a default": ("Transpose", {"perm": [1, 0]}, [ROWS], {"perm": [1, 0]}),
}  # fmt: skip


def graph(operator: str, attributes: dict[str, Any], inputs: list[np.ndarray]) -> onnx.ModelProto:
    names = ["x", *(f"w{i}" for i in range(1, len(inputs)))]
    node, weights = graphs.node(operator, names, ["y"], **attributes), dict(zip(names[1:], inputs[1:], strict=True))
    return graphs.graph([node], {"x": list(inputs[0].shape)}, {"y": [None] * inputs[0].ndim}, weights)


def output(model: onnx.ModelProto, x: np.ndarray) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("name", CASES)
def test_what_is_the_default_anyway_leaves_and_the_graph_computes_the_same(name: str) -> None:
    operator, attributes, inputs, left = CASES[name]
    model = graph(operator, attributes, inputs)
    before = output(model, inputs[0])
    drop_defaults(model.graph.node, OPSET)
    assert {a.name: helper.get_attribute_value(a) for a in model.graph.node[0].attribute} == left
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(output(model, inputs[0]), before)


def test_operators_of_other_domains_stay_as_they_are() -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft", approximate="none")
    drop_defaults([node], OPSET)
    assert [a.name for a in node.attribute] == ["approximate"]
