"""A graph whose weights are stored in 16 bits, or that computes in them."""

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pipeline.forms.graph import graphs_in, read_by, refill
from stages.quantize.graphs.masks import masked, touching
from stages.quantize.graphs.names import Names
from stages.quantize.halves.numbers import LARGEST, Kind, halved
from stages.quantize.rounding.layout import WEIGHTS
from stages.quantize.rounding.plan import labels, readers

SMALLEST = 32
"""Numbers of a weight at least: below, a Cast takes more bytes than it saves."""


def floats(graph: onnx.GraphProto, apart: Collection[str] = ()) -> Iterator[onnx.TensorProto]:
    """The weights in fp32 that are worth a Cast and that no node apart reads.

    Args:
        graph: its data may be elsewhere.
        apart: names of nodes.
    """
    ends = {value.name for value in (*graph.input, *graph.output)}
    ends |= {name for node in graph.node if node.name in apart for name in read_by(node)}
    for tensor in graph.initializer:
        size = int(np.prod(tensor.dims))
        if tensor.data_type == TensorProto.FLOAT and size >= SMALLEST and tensor.name not in ends:
            yield tensor


def with_those_behind(graph: onnx.GraphProto, names: Collection[str]) -> list[str]:
    """Some nodes with weights and, of each, those behind it up to the next, in their order.

    What stands before the first goes with that. So every node goes with one that has a weight of `WEIGHTS`.

    Args:
        graph: its data may be elsewhere.
        names: of the nodes.
    """
    weights = {tensor.name for tensor in floats(graph)}
    heads = [node.name for node in graph.node if weights.intersection(_weights_of(node))]
    head, some = next(iter(heads), ""), []
    for node in graph.node:
        head = node.name if node.name in heads else head
        some += [node.name] if head in names or node.name in names else []
    return some


def _weights_of(node: onnx.NodeProto) -> list[str]:
    return [node.input[place] for place in WEIGHTS.get(node.op_type, ()) if place < len(node.input)]


def store(graph: onnx.GraphProto, kind: Kind, weights: Iterable[onnx.TensorProto]) -> None:
    """Store weights in 16 bits, in place, each with a Cast that gives the node what it reads in fp32."""
    casts = []
    for tensor in [*weights]:
        name, stored = tensor.name, f"{tensor.name}_{kind}"
        tensor.CopyFrom(numpy_helper.from_array(halved(numpy_helper.to_array(tensor), kind), stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    refill(graph.node, [*casts, *graph.node])


def too_large(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes to keep in fp32 for masks, and for single constants that fp16 does not hold."""
    values = masked(graph)
    for part in graphs_in(graph):
        constants = {tensor.name: tensor for tensor in part.initializer if np.prod(tensor.dims) < SMALLEST}
        for node in part.node:
            if node.op_type in ("Constant", "ConstantOfShape"):
                constants.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
        kinds = (TensorProto.FLOAT, TensorProto.DOUBLE)
        arrays = {name: numpy_helper.to_array(t) for name, t in constants.items() if t.data_type in kinds}
        values |= {name for name, array in arrays.items() if (np.abs(array) > LARGEST["fp16"]).any()}
    return touching(graph, values)


def names_in(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """What a user may call each node: its operator, its name, its weights, and the layer that these are of."""
    weighted = readers(graph)
    names = Names({name: name for node in graph.node for name in node.input}, {n.name: n.name for n in graph.node})
    constants = {tensor.name for tensor in graph.initializer}
    every: dict[str, list[str]] = {}
    for node in graph.node:
        every[node.name] = [node.op_type, node.name, *(name for name in node.input if name in constants)]
        every[node.name] += labels(graph, node, names) if node.name in weighted else ()
    return every


def meant(graph: onnx.GraphProto, keys: Collection[str]) -> dict[str, list[str]]:
    """For each key the names of the nodes that it means, as `names_in` calls them, or of what layers are in."""
    every = names_in(graph)
    return {
        key: [name for name, some in every.items() if any(f"{label}.".startswith(f"{key}.") for label in some)]
        for key in keys
    }
