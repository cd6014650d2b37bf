"""Whether the scales of a quantized graph can be right."""

import onnx

from pipeline.errors import StageError
from pipeline.forms.graph import BLOCKWISE, QUANTIZED
from pipeline.measure.operators.quantized import scales_and_zero_points
from stages.quantize.graphs.masks import FLOATS

LARGEST = 1e30
"""No range of values that a network computes with is as large; that of the smallest float as a mask is."""


def check_scales(graph: onnx.GraphProto) -> None:
    """Raise StageError for a scale that is not finite, not above zero or absurdly large, naming its node."""
    # Those of blocks may be below zero, and come from weights that were looked at.
    names = scales_and_zero_points(graph) - {a for node in graph.node if node.op_type in BLOCKWISE for a in node.input}
    for tensor in graph.initializer:
        if tensor.name not in names or tensor.data_type not in FLOATS:
            continue
        scale = onnx.numpy_helper.to_array(tensor)
        wrong = scale[~((scale > 0) & (scale < LARGEST))]  # NaN is neither
        if wrong.size:
            node = next(node for node in graph.node if tensor.name in node.input)
            while node.op_type in QUANTIZED and (readers := [n for n in graph.node if node.output[0] in n.input]):
                node = readers[0]
            raise StageError(
                f"the scale `{tensor.name}` of the node `{node.name}` is {wrong[0]}",
                expected="a finite number above 0: the range of the values that it stands for",
                fix="Exclude the node that computes these values, or look for infinite values in the model",
            )
