"""A quantized graph with packed weights."""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from math import prod

import onnx
from onnx import TensorProto, numpy_helper

from pipeline.forms.graph import graphs_in, opset, refill
from pipeline.forms.packed import decoders
from pipeline.measure.operators.quantized import packed_elements, scales_and_zero_points
from stages.quantize.packing.codes.writer import Writer
from stages.quantize.packing.floats import Floats, pack_floats
from stages.quantize.packing.functions import call_again
from stages.quantize.packing.groups import Weight
from stages.quantize.packing.slim import slim
from stages.quantize.packing.weights import Stored, pack

INTEGERS = (TensorProto.INT8, TensorProto.UINT8)
SMALLEST = 32
"""Elements of a tensor that is packed at least."""
COPY_BYTES = 24
"""Of a node that copies a tensor."""


@dataclass(frozen=True)
class Packed:
    """A graph whose weights are packed.

    Args:
        proto: the graph.
        stored: how each tensor of it is stored, by its name before.
    """

    proto: onnx.ModelProto
    stored: dict[str, Stored]


def packed(proto: onnx.ModelProto, halves: Set[str] = frozenset(), functions: bool = False) -> Packed:
    """The graph, which stays as it is, with its integers and floats in few bytes, and nothing else that takes some.

    Args:
        proto: a quantized graph, all weights inside.
        halves: names of floats that may be halves, though they are not equal: those of `rounded_biases`.
        functions: whether what follows each other again and again becomes a function of the file.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    graph = copy.graph
    stored = share(graph, scales_and_zero_points(graph))
    writer = Writer(opset(copy))
    stored |= pack(writer, weights_of(graph))
    stored |= pack_floats(writer, floats_of(graph), halves)
    decoded = {name for node in writer.nodes for name in node.output}
    refill(graph.initializer, [*(t for t in graph.initializer if t.name not in decoded), *writer.tensors])
    refill(graph.node, [*writer.nodes, *graph.node])
    slim(copy)
    if functions:
        call_again(copy, decoders(graph))
    return Packed(copy, stored)


def weights_of(graph: onnx.GraphProto) -> list[Weight]:
    """The weights in integers of 8 bits, no scales and zero points among them."""
    names = weight_names(graph)
    return [Weight.of(tensor) for tensor in graph.initializer if tensor.name in names]


def weight_names(graph: onnx.GraphProto) -> set[str]:
    """Names of what `weights_of` gives, also where the data of a graph are not loaded."""
    aside = scales_and_zero_points(graph) | {*packed_elements(graph)}
    return {t.name for t in _of_type(graph, INTEGERS) if t.name not in aside and prod(t.dims) >= SMALLEST}


def floats_of(graph: onnx.GraphProto) -> dict[str, Floats]:
    """The tensors of floats with axes, by name: scales, biases and weights."""
    return {t.name: numpy_helper.to_array(t) for t in _of_type(graph, (TensorProto.FLOAT,))}


def _of_type(graph: onnx.GraphProto, kinds: Iterable[int]) -> list[onnx.TensorProto]:
    ends = {value.name for value in (*graph.input, *graph.output)}
    return [t for t in graph.initializer if t.data_type in kinds and len(t.dims) and t.name not in ends]


def share(graph: onnx.GraphProto, aside: set[str]) -> dict[str, Stored]:
    """Store equal tensors once, in place: how the others are stored, by their names.

    Of scales and zero points the first is read for all; weights, which count as parameters, are copies of the first.
    """
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for tensor in _of_type(graph, (*INTEGERS, TensorProto.FLOAT)):
        key = (tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes())
        name = first.setdefault(key, tensor.name)
        if name != tensor.name and (tensor.name in aside or len(key[2]) > COPY_BYTES):
            same[tensor.name] = name
    for part in graphs_in(graph):
        for node in part.node:
            node.input[:] = [same[name] if name in aside and name in same else name for name in node.input]
    refill(graph.initializer, [tensor for tensor in graph.initializer if tensor.name not in same])
    copies = [onnx.helper.make_node("Identity", [to], [name]) for name, to in same.items() if name not in aside]
    refill(graph.node, [*copies, *graph.node])
    return {name: Stored("shared", 0) for name in same}
