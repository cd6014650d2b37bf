"""Values that stand for "not this one", as -inf, -1e4 or the smallest float do in attention: what 8 bits cannot hold.

Beside them all other values of a tensor would fall into one or two of its 256 steps. So nodes that read or write such
a tensor stay in fp32, with the softmax or the maximum that it is made for.
"""

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

LARGE = 100.0
STEPS = 256
CARRIERS = {
    "Add", "Cast", "Concat", "Div", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Max",
    "Min", "Mul", "Neg", "Pad", "Reshape", "ScatterElements", "ScatterND", "Slice", "Split", "Squeeze", "Sub", "Tile",
    "Transpose", "Trilu", "Unsqueeze", "Where",
}  # fmt: skip
"""Operators that move values, or join them element by element."""
CHOOSERS = {
    "ArgMax", "ArgMin", "Exp", "GlobalMaxPool", "Hardmax", "LogSoftmax", "Max", "MaxPool", "Min", "ReduceLogSumExp",
    "ReduceMax", "ReduceMin", "Sigmoid", "Softmax", "TopK",
}  # fmt: skip
"""Operators for which a mask is made: what it hides adds nothing to what they give."""
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


def masked(graph: onnx.GraphProto) -> set[str]:
    """Names of the values through which a constant of 100 or more, of either sign, comes to a softmax or a maximum."""
    large = _large_constants(graph)
    for node in graph.node:
        if node.op_type in CARRIERS and large.intersection(node.input):
            large.update(node.output)
    values: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type in CHOOSERS or (node.op_type in CARRIERS and values.intersection(node.output)):
            values |= large.intersection(node.input)
    return values


def touching(graph: onnx.GraphProto, values: Iterable[str]) -> list[str]:
    """Names of the nodes that read or write one of some values."""
    names = {*values}
    return [node.name for node in graph.node if names.intersection((*node.input, *node.output))]


def hides(values: NDArray[np.floating]) -> bool:
    """Whether 8 bits would hold the largest of the values and nothing of the others, or one of them is not finite."""
    if not np.isfinite(values).all():
        return True
    sizes = np.abs(values)
    highest = sizes.max(initial=0)
    small = sizes <= highest / STEPS
    is_gap = not (~small & (sizes < highest / 4)).any()
    return bool(highest >= LARGE and is_gap and np.unique(values[small]).size > 1)


def hidden_weights(graph: onnx.GraphProto, operators: Iterable[str]) -> set[str]:
    """Names of the constants, such as a table with a row of -1e9, that nodes of some operators read and 8 bits ruin."""
    read = {name for node in graph.node if node.op_type in operators for name in node.input}
    tensors = (tensor for tensor in graph.initializer if tensor.name in read and tensor.data_type in FLOATS)
    return {tensor.name for tensor in tensors if hides(numpy_helper.to_array(tensor))}


def _large_constants(graph: onnx.GraphProto) -> set[str]:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Constant", "ConstantOfShape"):
            constants.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    floats = {name: numpy_helper.to_array(t) for name, t in constants.items() if t.data_type in FLOATS}
    return {name for name, array in floats.items() if not (np.abs(array) < LARGE).all()}
