"""The part of a graph that depends on some of its nodes."""

from collections.abc import Collection
from typing import NamedTuple

import onnx

from pipeline.forms.graph import graphs_in, read_by, refill


class Behind(NamedTuple):
    """A graph of some nodes and of all that depends on them.

    Args:
        proto: the graph; its one output is the one that was asked for, and it declares no inputs.
        sources: the names of the values that the rest of the whole graph gives it, inputs of that among them.
    """

    proto: onnx.ModelProto
    sources: list[str]


def behind(proto: onnx.ModelProto, nodes: Collection[str], output: str) -> Behind | None:
    """What lies behind some nodes, these included, on the way to an output; None where none of them is on it.

    Args:
        proto: the whole graph, its nodes in order.
        nodes: names of nodes.
        output: name of one of its outputs.
    """
    dependent = _dependent(proto.graph, nodes)
    needed = _needed(dependent, output)
    if not needed:
        return None
    outputs = {name for node in needed for name in node.output}
    constants = {tensor.name for tensor in proto.graph.initializer}
    read = dict.fromkeys(name for node in needed for name in _free(node))
    sources = [name for name in read if name and name not in outputs and name not in constants]
    part = onnx.ModelProto()
    part.CopyFrom(_without_graph(proto))
    part.graph.name = proto.graph.name or "behind"
    part.graph.node.extend(needed)
    part.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in read)
    part.graph.output.extend(value for value in proto.graph.output if value.name == output)
    return Behind(part, sources)


def _dependent(graph: onnx.GraphProto, nodes: Collection[str]) -> list[onnx.NodeProto]:
    changed: set[str] = set()
    dependent = []
    for node in graph.node:
        if node.name in nodes or changed.intersection(read_by(node)):
            changed.update(name for name in node.output if name)
            dependent.append(node)
    return dependent


def _needed(nodes: list[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    wanted, needed = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(read_by(node))
            needed.append(node)
    return needed[::-1]


def _free(node: onnx.NodeProto) -> list[str]:
    """What a node reads of the graph that it is in: not what graphs inside it make for themselves."""
    own: set[str] = set()
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for part in graphs_in(graph):
                own.update(value.name for value in (*part.input, *part.initializer))
                own.update(name for inner in part.node for name in inner.output)
    return [name for name in read_by(node) if name not in own]


def _without_graph(proto: onnx.ModelProto) -> onnx.ModelProto:
    head = onnx.ModelProto(ir_version=proto.ir_version)
    refill(head.opset_import, list(proto.opset_import))
    refill(head.functions, list(proto.functions))
    return head
