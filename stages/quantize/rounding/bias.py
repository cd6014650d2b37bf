"""The mean shift of a layer's outputs, taken off its bias."""

import numpy as np
import onnx
from onnx import numpy_helper

from stages.quantize.rounding.codes import Floats


def take_off(graph: onnx.GraphProto, node: onnx.NodeProto, shift: Floats) -> bool:
    """Have a layer give less by the shift of each channel, in place; whether it has a place for that.

    A convolution or Gemm without a bias gets one; a MatMul has that of the Add behind it, if that is a constant. A bias
    that other nodes read stays as it is for them.

    Args:
        graph: the fp32 graph.
        node: the layer's.
        shift: (channels,) the mean of what it gives too much.

    Reference: Markus Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019,
    arXiv:1906.04721, section 4.2, eq. 17, with the mean measured on calibration data.
    """
    holder, place = (node, 2) if node.op_type != "MatMul" else _addition(graph, node)
    if holder is None:
        return False
    constants = {tensor.name: tensor for tensor in graph.initializer}
    name = holder.input[place] if place < len(holder.input) else ""
    if name and name not in constants:
        return False
    old = numpy_helper.to_array(constants[name]) if name else np.zeros(1, np.float32)
    if old.size not in (1, shift.size) or old.shape[:-1] != (1,) * (old.ndim - 1):
        return False
    new = f"{node.name}_bias"
    values = (np.broadcast_to(old.ravel(), shift.shape) - shift).astype(old.dtype)
    graph.initializer.append(numpy_helper.from_array(values, new))
    inputs = [*holder.input, *[""] * (place + 1 - len(holder.input))]
    holder.input[:] = [*inputs[:place], new, *inputs[place + 1 :]]
    return True


def _addition(graph: onnx.GraphProto, node: onnx.NodeProto) -> tuple[onnx.NodeProto | None, int]:
    """The Add that alone reads what a node gives, and the place of its other input."""
    readers = [other for other in graph.node if node.output[0] in other.input]
    is_given = node.output[0] in {value.name for value in graph.output}
    if len(readers) != 1 or readers[0].op_type != "Add" or is_given:
        return None, 0
    return readers[0], 1 - list(readers[0].input).index(node.output[0])
