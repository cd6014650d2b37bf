"""The channels of layers: the largest weight of each, and weights times a factor for each."""

from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from stages.quantize.rounding.layout import attributes

Floats = NDArray[np.floating]
LAYERS = ("Conv", "Gemm", "MatMul")


def is_turned(node: onnx.NodeProto) -> bool:
    """Whether a row of its weight makes an output; in a matrix product of the plain kind a column does."""
    return node.op_type == "Conv" or bool(attributes(node).get("transB"))


def outputs(node: onnx.NodeProto, weight: Floats) -> Floats:
    """The largest size of the weights of each output channel: (outputs,)."""
    if node.op_type == "Conv":
        return np.asarray(np.abs(weight).reshape(len(weight), -1).max(1))
    return np.asarray(np.abs(weight).max(1 if is_turned(node) else 0))


def inputs(node: onnx.NodeProto, weight: Floats) -> Floats:
    """The largest size of the weights that each input channel meets: (inputs,)."""
    if node.op_type != "Conv":
        return np.asarray(np.abs(weight).max(0 if is_turned(node) else 1))
    groups = attributes(node).get("group", 1)
    blocks = np.abs(weight).reshape(groups, len(weight) // groups, weight.shape[1], prod(weight.shape[2:]))
    return np.asarray(blocks.max((1, 3)).ravel())


def times_outputs(node: onnx.NodeProto, weight: Floats, factors: Floats) -> Floats:
    """The weight with each output channel times its factor, in its own type."""
    shape = (-1, *[1] * (weight.ndim - 1)) if is_turned(node) else (1, -1)
    return (weight * factors.reshape(shape)).astype(weight.dtype)


def times_inputs(node: onnx.NodeProto, weight: Floats, factors: Floats) -> Floats:
    """The weight with what each input channel meets times its factor, in its own type."""
    if node.op_type != "Conv":
        shape = (1, -1) if is_turned(node) else (-1, 1)
        return (weight * factors.reshape(shape)).astype(weight.dtype)
    groups = attributes(node).get("group", 1)
    rows = np.repeat(factors.reshape(groups, -1), len(weight) // groups, 0)
    return (weight * rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))).astype(weight.dtype)
