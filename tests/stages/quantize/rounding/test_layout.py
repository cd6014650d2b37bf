"""Blocks times rows are what ONNX Runtime computes."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from stages.quantize.rounding import layout
from tests.graphs import graph, node
from tests.quantizing import draw


def computed(layer: onnx.NodeProto, shape: tuple[int, ...], values: Any) -> tuple[Any, Any]:
    """What a node gives by ONNX Runtime, and by blocks and rows; each as (channels of the output, all else), sorted."""
    weight = draw(*shape)
    proto = graph([layer], {"x": [*values.shape]}, {"y": [None] * values.ndim}, {"w": weight})
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"x": values})
    blocks = weight.ravel()[layout.places(layer, shape)]
    parts = [blocks @ rows.swapaxes(1, 2) for rows in layout.rows(layer, shape, values)]
    ours = np.concatenate(parts, axis=2).reshape(blocks.shape[0] * blocks.shape[1], -1)
    axis = 1 if layer.op_type.startswith("Conv") else theirs.ndim - 1
    return np.moveaxis(theirs, axis, 0).reshape(theirs.shape[axis], -1), ours


@pytest.mark.parametrize(("operator", "shape", "size", "settings"), [
    ("Conv", (6, 4, 3, 3), (4, 9, 8), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", (6, 2, 3, 2), (4, 9, 8), {"group": 2, "dilations": [2, 3]}),
    ("Conv", (4, 1, 3, 3), (4, 7, 7), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", (4, 2, 4, 4), (2, 7, 9), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    ("Conv", (4, 2, 4), (2, 9), {"auto_pad": "VALID"}),
    ("Conv", (4, 2, 2, 3, 2), (2, 5, 6, 4), {"pads": [1, 0, 0, 1, 1, 1]}),
    ("ConvTranspose", (4, 3, 3, 3), (4, 5, 4), {"strides": [2, 3], "pads": [1, 0, 1, 2], "output_padding": [1, 0]}),
    ("ConvTranspose", (4, 3, 3, 2), (4, 5, 4), {"group": 2, "dilations": [2, 1], "strides": [1, 2]}),
    ("ConvTranspose", (4, 3, 2), (4, 6), {"pads": [2, 1]}),
    ("Gemm", (5, 7), (7,), {"transB": 1}),
    ("Gemm", (7, 5), (7,), {}),
    ("MatMul", (7, 5), (3, 7), {}),
])  # fmt: skip
def test_blocks_times_rows_are_the_outputs(operator: str, shape: Any, size: Any, settings: Any) -> None:
    layer = node(operator, ["x", "w"], ["y"], **settings)
    assert layout.has_rows(layer, shape)
    theirs, ours = computed(layer, shape, draw(2, *size))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_transposed_input_of_a_gemm() -> None:
    theirs, ours = computed(node("Gemm", ["x", "w"], ["y"], transA=1), (7, 5), draw(7, 3))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_images_come_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = node("Conv", ["x", "w"], ["y"])
    values, shape = draw(5, 2, 6, 6), (3, 2, 3, 3)
    (whole,) = layout.rows(layer, shape, values)
    monkeypatch.setattr(layout, "LARGEST", 2 * whole.size // 5)
    parts = list(layout.rows(layer, shape, values))
    assert [part.shape[1] for part in parts] == [32, 32, 16]
    np.testing.assert_array_equal(np.concatenate(parts, 1), whole)


@pytest.mark.parametrize(("layer", "shape"), [
    (helper.make_node("Gather", ["w", "x"], ["y"]), (7, 5)),
    (helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=2), (1, 8, 3)),
    (helper.make_node("MatMul", ["x", "w"], ["y"]), (2, 7, 5)),
    (helper.make_node("ConvTranspose", ["x", "w"], ["y"], output_shape=[1, 3, 9, 9]), (4, 3, 3, 3)),
    (helper.make_node("ConvTranspose", ["x", "w"], ["y"], auto_pad="SAME_UPPER"), (4, 3, 3, 3)),
])  # fmt: skip
def test_what_has_no_rows_has_blocks(layer: onnx.NodeProto, shape: tuple[int, ...]) -> None:
    assert not layout.has_rows(layer, shape)
    assert sorted(layout.places(layer, shape).ravel()) == [*range(np.prod(shape))]
