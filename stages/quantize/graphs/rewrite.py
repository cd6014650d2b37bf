"""The same graph, written so that quantizers take it, or with fewer bytes."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

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
            key = (tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes())
            same[tensor.name] = first.setdefault(key, tensor.name)
    refill(graph.initializer, [tensor for tensor in graph.initializer if same.get(tensor.name) in (None, tensor.name)])
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]


def split_gemm(node: onnx.NodeProto) -> str:
    """The name of the MatMul that ONNX Runtime makes of a Gemm; other nodes keep theirs."""
    return f"{node.name}_MatMul" if node.op_type == "Gemm" else str(node.name)


TRANSPOSED = "_transposed"


def original(name: str) -> str:
    """The name of a weight before `transpose_gemms`."""
    return name.removesuffix(TRANSPOSED)


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
            transposed_names[name] = f"{name}{TRANSPOSED}"
            matrix = numpy_helper.to_array(weights[name]).T.copy()
            graph.initializer.append(numpy_helper.from_array(matrix, transposed_names[name]))
        node.input[1] = transposed_names[name]
        node.attribute.remove(flags[0])
    drop_unread(graph, transposed_names)
    return proto


def plain_gemms(graph: onnx.GraphProto) -> None:
    """Fold the factors of each Gemm into its constants, and give its bias one axis, in place.

    ONNX Runtime's static quantizer reads a bias as one number a channel and stops where it has other axes, its integer
    kernel knows no `beta`, and its dynamic quantizer leaves a Gemm with factors alone.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for position, node in enumerate(graph.node):
        if node.op_type != "Gemm" or node.input[1] not in tensors:
            continue
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        width = tensors[node.input[1]].dims[0 if transposed else 1]
        for place, factor in ((1, "alpha"), (2, "beta")):
            scale = [a for a in node.attribute if a.name == factor]
            name = node.input[place] if place < len(node.input) else ""
            if name not in tensors:
                continue
            old = numpy_helper.to_array(tensors[name])
            new = old * old.dtype.type(scale[0].f) if scale else old
            if place == 2 and new.size in (1, width):
                new = np.broadcast_to(new.reshape(-1), [width]).copy()
            if new.shape != old.shape or not np.array_equal(new, old):
                node.input[place] = f"{name}_of_gemm_{position}"
                graph.initializer.append(numpy_helper.from_array(new, node.input[place]))
            refill(node.attribute, [a for a in node.attribute if a.name != factor])
    drop_unread(graph, tensors)


def drop_unread(graph: onnx.GraphProto, names: Iterable[str]) -> None:
    """Remove, of the initializers with these names, those that nothing reads."""
    read = {name for part in graphs_in(graph) for node in part.node for name in node.input}
    unread = {*names} - read - {value.name for value in graph.output}
    refill(graph.initializer, [tensor for tensor in graph.initializer if tensor.name not in unread])


def chosen(graph: onnx.GraphProto, operators: Iterable[str], exclude: Iterable[str]) -> dict[str, onnx.NodeProto]:
    """The nodes of some operators, by name, without those that are excluded."""
    kinds, names = {*operators}, {*exclude}
    return {node.name: node for node in graph.node if node.op_type in kinds and node.name not in names}


def deep_products(graph: onnx.GraphProto) -> dict[str, str]:
    """The MatMuls with a constant weight of more than two axes: the node's name, and the weight's."""
    axes = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    return {n.name: n.input[1] for n in graph.node if n.op_type == "MatMul" and axes.get(n.input[1], 0) > 2}


def torn_weights(graph: onnx.GraphProto) -> set[str]:
    """Names of the constants that nodes read along different axes, so that none of them has the channels of all."""
    axes: dict[str, set[int | None]] = {tensor.name: set() for tensor in graph.initializer}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in axes:
                axes[name].add(_channel_axis(node) if place == 1 else None)
    return {name for name, read in axes.items() if len(read) > 1}


def _channel_axis(node: onnx.NodeProto) -> int | None:
    """The axis of a node's weight that is its output's; None where it has none."""
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}.get(node.op_type)


def own_inputs(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Have each of some nodes read its first input through an Identity, with new names for the quantizer."""
    nodes = []
    for node in graph.node:
        if node.name in names:
            copy = f"{node.input[0]}_of_{node.name}"
            nodes.append(onnx.helper.make_node("Identity", [node.input[0]], [copy], copy))
            node.input[0] = copy
        nodes.append(node)
    refill(graph.node, nodes)


def own_weights(graph: onnx.GraphProto) -> dict[str, str]:
    """Give each LSTM weights of its own, in place: what the copies were made of, by their names.

    ONNX Runtime turns the weights of an LSTM in place: those that two of them share would be turned twice.
    """
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    taken: set[str] = set()
    copies: dict[str, str] = {}
    for node in (node for node in graph.node if node.op_type == "LSTM"):
        for place, name in [*enumerate(node.input)][1:3]:
            if name in tensors and name in taken:
                node.input[place] = f"{name}_of_{node.name}_{place}"
                copies[node.input[place]] = name
                graph.initializer.append(tensors[name])
                graph.initializer[-1].name = node.input[place]
            taken.add(name)
    return copies


def share_copies(graph: onnx.GraphProto, copies: Mapping[str, str]) -> None:
    """Have nodes read, in the place of copies and of what was made of these, what was made of the first."""
    parts = ("", "_quantized", "_scale", "_zero_point")
    same = {f"{copy}{part}": f"{first}{part}" for copy, first in copies.items() for part in parts}
    there = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        node.input[:] = [same[name] if same.get(name) in there else name for name in node.input]
    drop_unread(graph, same)
