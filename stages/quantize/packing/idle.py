"""Nodes and attributes that change nothing where they stand."""

from collections import Counter

import numpy as np
import onnx
from onnx import TensorProto
from onnx.numpy_helper import to_array

from pipeline.forms.graph import read_by, refill


def drop_clips(graph: onnx.GraphProto) -> None:
    """Leave out each Relu that only a QuantizeLinear to uint8 with zero point 0 reads, in place.

    What is below zero becomes 0 there anyway.
    """
    zeros = {t.name for t in graph.initializer if t.data_type == TensorProto.UINT8 and not np.any(to_array(t))}
    counts = Counter(name for node in graph.node for name in read_by(node))
    counts.update(value.name for value in graph.output)
    clips = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Relu"}
    idle = set()
    for node in (node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in clips):
        clip, told = node.input[0], [*node.input[2:], *(a.name for a in node.attribute if a.name == "output_dtype")]
        if counts[clip] == 1 and zeros.issuperset(told):
            node.input[0] = clips[clip]
            idle.add(clip)
    refill(graph.node, [node for node in graph.node if idle.isdisjoint(node.output)])


def drop_idle_attributes(graph: onnx.GraphProto) -> None:
    """Leave out attributes that say something for shapes with zeros, or padding, where there is none, in place."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        names = {attribute.name for attribute in node.attribute}
        if node.op_type == "AveragePool" and not names & {"pads", "auto_pad", "ceil_mode"}:
            idle = "count_include_pad"
        elif node.op_type == "Reshape" and node.input[1] in tensors and _is_filled(tensors[node.input[1]]):
            idle = "allowzero"
        else:
            continue
        refill(node.attribute, [attribute for attribute in node.attribute if attribute.name != idle])


def _is_filled(tensor: TensorProto) -> bool:
    return bool(np.all(to_array(tensor)))
