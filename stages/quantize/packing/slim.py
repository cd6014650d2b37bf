"""What a file can do without, and the shortest way to say what it cannot."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pipeline.forms.graph import graphs_in, refill, strip
from pipeline.forms.packed import MARK
from stages.quantize.graphs.names import compact_names
from stages.quantize.graphs.rewrite import drop_unread, share_initializers
from stages.quantize.packing.idle import drop_clips, drop_idle_attributes

ZERO_POINTS = {"DequantizeLinear": 2, "QuantizeLinear": 2, "MatMulInteger": 3, "ConvInteger": 3}
"""Where an operator may be told a zero point; left out it is 0."""
WITHOUT = ("Conv", "Add")
"""Operators that ONNX Runtime makes integer ones of also where what is dequantized for them has no zero point."""
VARYING = {TensorProto.INT64: "int64_data", TensorProto.INT32: "int32_data"}
"""Whole numbers that may be written in as many bytes as each of them needs."""


def slim(proto: onnx.ModelProto) -> None:
    """Make a graph that is whole as small as it goes, in place: its inputs and outputs keep their names."""
    proto.producer_name = proto.producer_version = ""
    name_constants(proto.graph)
    drop_clips(proto.graph)
    drop_idle_attributes(proto.graph)
    drop_zero_points(proto.graph)
    drop_kernel_shapes(proto.graph)
    strip(proto)
    share_initializers(proto.graph)
    compact_names(proto.graph)
    proto.graph.name = MARK
    for part in graphs_in(proto.graph):
        for node in part.node:
            node.ClearField("name")
        refill(part.initializer, [shortest(tensor) for tensor in part.initializer])


def name_constants(graph: onnx.GraphProto) -> None:
    """Make initializers of Constant nodes that hold a tensor, in place."""
    held = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    for node in held:
        tensor = node.attribute[0].t
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
    names = {node.output[0] for node in held}
    refill(graph.node, [node for node in graph.node if not names.intersection(node.output)])


def drop_zero_points(graph: onnx.GraphProto) -> None:
    """Leave zero points out that are 0, in place, where that says the same and the same kernels come of it."""
    zeros = {t.name: t.data_type for t in graph.initializer if not np.any(numpy_helper.to_array(t))}
    readers: dict[str, list[onnx.NodeProto]] = {value.name: [onnx.NodeProto()] for value in graph.output}
    for part in graphs_in(graph):
        for node in part.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        place = ZERO_POINTS.get(node.op_type)
        if place is None or len(node.input) != place + 1 or node.input[place] not in zeros:
            continue
        # Of a QuantizeLinear the zero point tells the type too, which is uint8 without one.
        is_needed = node.op_type == "QuantizeLinear" and (
            zeros[node.input[place]] != TensorProto.UINT8 or _is_computed(node.input[0], makers)
        )
        if not is_needed and _takes_none(node, readers):
            node.input.pop()
    drop_unread(graph, zeros)


def drop_kernel_shapes(graph: onnx.GraphProto) -> None:
    """Have convolutions take their kernel's shape from their weights, in place, as the standard allows."""
    for node in (node for node in graph.node if node.op_type in ("Conv", "ConvInteger")):
        refill(node.attribute, [a for a in node.attribute if a.name != "kernel_shape"])


def _is_computed(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether another operator than `WITHOUT` gives a value: ONNX Runtime moves what quantizes it by its zero point."""
    return name in makers and makers[name].op_type not in WITHOUT


def _takes_none(node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]]) -> bool:
    """Whether all that read what a node gives, dequantized, take it without a zero point."""
    if node.op_type in ("MatMulInteger", "ConvInteger"):
        return True
    after = readers.get(node.output[0], [])
    if node.op_type == "QuantizeLinear":
        return all(one.op_type == "DequantizeLinear" and _takes_none(one, readers) for one in after)
    return all(one.op_type in WITHOUT for one in after)


def shortest(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """The tensor, with its whole numbers in as many bytes as each needs where that is shorter."""
    field = VARYING.get(tensor.data_type)
    if field is None:
        return tensor
    other = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    getattr(other, field).extend(numpy_helper.to_array(tensor).reshape(-1).tolist())
    return min(tensor, other, key=lambda one: one.ByteSize())
