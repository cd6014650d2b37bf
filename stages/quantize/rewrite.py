"""Fewer bytes for the same graph: short names, and equal scales and zero points once."""

import itertools
import string
from collections import Counter
from collections.abc import Iterator

import onnx

from pipeline.forms.graph import QDQ, graphs_in, refill


def share_initializers(graph: onnx.GraphProto) -> None:
    """Make one initializer of equal scales and zero points of QuantizeLinear and DequantizeLinear.

    Equal means the same type, shape and bytes. Weights are left alone, so that parameters count as before.
    """
    parameters = {name for node in graph.node if node.op_type in QDQ for name in node.input[1:]}
    others = {name for node in graph.node for name in (node.input[:1] if node.op_type in QDQ else node.input)}
    others |= {value.name for value in (*graph.input, *graph.output)}
    others |= {name for part in graphs_in(graph) if part is not graph for node in part.node for name in node.input}
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for tensor in graph.initializer:
        if tensor.name in parameters - others:
            key = (tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes())
            same[tensor.name] = first.setdefault(key, tensor.name)
    refill(graph.initializer, [tensor for tensor in graph.initializer if same.get(tensor.name) in (None, tensor.name)])
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]


def compact_names(graph: onnx.GraphProto) -> None:
    """Give short names to what is inside a graph; the names of its inputs and outputs stay.

    ONNX Runtime's quantizers make names such as `blocks.0.conv1.weight_DequantizeLinear_Output`, which are a good
    part of a file of 20 kB. The most frequent names become the shortest; nodes are named in their order.
    """
    fixed = {value.name for value in (*graph.input, *graph.output)} | {""}
    graphs = list(graphs_in(graph))
    names = Counter(name for part in graphs for name in _names(part))
    short = (name for name in _words() if name not in fixed)
    mapping = {name: name if name in fixed else next(short) for name, _ in names.most_common()}
    words = _words()
    for part in graphs:
        for node in part.node:
            node.name = next(words)
            node.input[:] = [mapping[name] for name in node.input]
            node.output[:] = [mapping[name] for name in node.output]
        for entry in _entries(part):
            entry.name = mapping[entry.name]


def _entries(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto | onnx.TensorProto]:
    sparse = (tensor.values for tensor in graph.sparse_initializer)
    return [*graph.input, *graph.output, *graph.value_info, *graph.initializer, *sparse]


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Each name of a value, as often as it is written."""
    yield from (entry.name for entry in _entries(graph))
    for node in graph.node:
        yield from (*node.input, *node.output)


def _words() -> Iterator[str]:
    """a, b, ... aa, ab, ...: letters alone, as ONNX asks for identifiers."""
    for length in itertools.count(1):
        yield from ("".join(word) for word in itertools.product(string.ascii_letters, repeat=length))


def split_gemm(node: onnx.NodeProto) -> str:
    """The name of the MatMul that ONNX Runtime makes of a Gemm; other nodes keep theirs."""
    return f"{node.name}_MatMul" if node.op_type == "Gemm" else str(node.name)


def transpose_gemms(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph, changed in place, with constant weights of `Gemm(transB=1)` stored transposed, shared ones once.

    ONNX Runtime would transpose a weight in place for each Gemm that reads it: one that two of them share comes out
    wrong, without an error.
    """
    graph = proto.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    transposed_names: dict[str, str] = {}
    for node in graph.node:
        flags = [a for a in node.attribute if a.name == "transB" and a.i]
        if node.op_type != "Gemm" or not flags or node.input[1] not in weights:
            continue
        name = node.input[1]
        if name not in transposed_names:
            transposed_names[name] = f"{name}_transposed"
            matrix = onnx.numpy_helper.to_array(weights[name]).T.copy()
            graph.initializer.append(onnx.numpy_helper.from_array(matrix, transposed_names[name]))
        node.input[1] = transposed_names[name]
        node.attribute.remove(flags[0])
    read = {name for part in graphs_in(graph) for node in part.node for name in node.input}
    read |= {value.name for value in graph.output}
    for name in transposed_names:
        if name not in read:
            graph.initializer.remove(weights[name])
    return proto
