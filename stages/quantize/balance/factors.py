"""Factors for the channels between layers, put into their weights, in place: the outputs stay."""

import numpy as np
import onnx
from onnx import numpy_helper

from stages.quantize.balance.channels import Floats, times_inputs, times_outputs
from stages.quantize.balance.pairs import Graph, Pair


def apply(graph: Graph, pair: Pair, factors: Floats) -> None:
    """Divide the channels that a pair has between its layers by factors, and multiply what reads them.

    Args:
        graph: its constants are changed; a LayerNormalization that others read too gets a twin with weights of its own.
        pair: of this graph.
        factors: (channels,), above zero.
    """
    if pair.first.op_type == "LayerNormalization":
        first = _twin(graph, pair) if pair.others else pair.first
        for place in range(1, len(first.input)):
            _put(graph, first, place, graph.array(first.input[place]) / factors)
    else:
        first = pair.first
        _put(graph, first, 1, times_outputs(first, graph.array(first.input[1]), 1 / factors))
        if pair.bias:
            node, place = pair.bias
            _put(graph, node, place, graph.array(node.input[place]) / factors)
    for node in pair.second:
        _put(graph, node, 1, times_inputs(node, graph.array(node.input[1]), np.repeat(factors, pair.repeats)))


def _twin(graph: Graph, pair: Pair) -> onnx.NodeProto:
    """A second LayerNormalization of the same values, which the layers of the pair read in place of the first."""
    twin = onnx.NodeProto()
    twin.CopyFrom(pair.first)
    twin.name, twin.output[:] = f"{pair.first.name}_balanced", [f"{pair.value}_balanced"]
    nodes = graph.proto.node
    nodes.insert([node.name for node in nodes].index(pair.first.name), twin)
    for value in [value for value in graph.proto.value_info if value.name == pair.value]:
        graph.proto.value_info.append(value)
        graph.proto.value_info[-1].name = twin.output[0]
    for node in pair.second:
        node.input[0] = twin.output[0]
    for name in twin.input:
        graph.counts[name] += 1
    return next(node for node in nodes if node.name == twin.name)


def _put(graph: Graph, node: onnx.NodeProto, place: int, array: Floats) -> None:
    """Give a node another constant; where others read the old one, it becomes its own."""
    name = node.input[place]
    tensor = numpy_helper.from_array(np.asarray(array, np.float32), name)
    if graph.counts[name] == 1:
        graph.tensors[name].CopyFrom(tensor)
        return
    graph.counts[name] -= 1
    tensor.name = f"{name}_of_{node.name}_{place}"
    node.input[place] = tensor.name
    graph.proto.initializer.append(tensor)
    graph.tensors[tensor.name] = graph.proto.initializer[-1]
    graph.counts[tensor.name] = 1
