"""Weights that a graph decodes when a runtime loads it: found, and decoded in numpy, apart from any runtime."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.inliner import inline_local_functions

from pipeline.errors import StageError
from pipeline.forms.external_data import load_whole
from pipeline.forms.graph import reads, refill

Array = NDArray[Any]
Attributes = Mapping[str, Any]
MOST = 2**32
"""Elements of a tensor that is decoded at most."""
NARROW = (TensorProto.INT4, TensorProto.UINT4)


def _cast(inputs: Sequence[Array], attributes: Attributes) -> Array:
    return inputs[0].astype(onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _filled(inputs: Sequence[Array], attributes: Attributes) -> Array:
    shape = inputs[0].tolist()
    if prod(shape) > MOST:
        raise StageError(f"a weight decodes to {prod(shape):,} elements", expected=f"at most {MOST:,}")
    value = onnx.numpy_helper.to_array(attributes["value"])
    return np.full(shape, value.reshape(-1)[0], value.dtype)


def _quotient(inputs: Sequence[Array], _: Attributes) -> Array:
    quotient: Array = inputs[0] / inputs[1] if inputs[0].dtype.kind == "f" else inputs[0] // inputs[1]
    return quotient


def _scattered(inputs: Sequence[Array], _: Attributes) -> Array:
    result = inputs[0].copy()
    np.put_along_axis(result, inputs[1].astype(np.int64), inputs[2], 0)
    return result


OPERATORS: dict[str, Callable[[Sequence[Array], Attributes], Array]] = {
    "BitwiseOr": lambda inputs, _: inputs[0] | inputs[1],
    "Cast": _cast,
    "Concat": lambda inputs, attributes: np.concatenate(inputs, attributes["axis"]),
    "ConstantOfShape": _filled,
    "CumSum": lambda inputs, _: np.cumsum(inputs[0], int(inputs[1]), inputs[0].dtype),
    "Div": _quotient,
    "Gather": lambda inputs, _: np.take(inputs[0], inputs[1], 0),
    "GatherElements": lambda inputs, _: np.take_along_axis(inputs[0], inputs[1].astype(np.int64), 0),
    "Identity": lambda inputs, _: inputs[0],
    "Mod": lambda inputs, _: inputs[0] % inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "ReduceSum": lambda inputs, _: inputs[0].sum(tuple(inputs[1].tolist()), inputs[0].dtype),
    "Reshape": lambda inputs, _: inputs[0].reshape(inputs[1].tolist()),
    "ScatterElements": _scattered,
    "Sub": lambda inputs, _: inputs[0] - inputs[1],
}
"""What decoders are made of, beside Split, as `quantize.pack` writes them: along the first axis, of numbers from 0."""
ATTRIBUTES = {"Cast": {"to"}, "Concat": {"axis"}, "ConstantOfShape": {"value"}, "ReduceSum": {"keepdims"}}
"""Those that they have, all of them."""
MARK = "p"
"""The name of a graph that is packed."""
TELLING = ("BitwiseOr", "Gather", "GatherElements", "Mod", "ScatterElements", "Split")


def decoders(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that compute weights of initializers alone, in order."""
    known = {tensor.name for tensor in graph.initializer} - {value.name for value in graph.input}
    nodes = []
    for node in graph.node:
        if _is_decoder(node) and known.issuperset(node.input):
            known.update(node.output)
            nodes.append(node)
    return nodes


def _is_decoder(node: onnx.NodeProto) -> bool:
    """Whether it is a node as a decoder has it."""
    attributes = {attribute.name for attribute in node.attribute}
    if node.domain or attributes != ATTRIBUTES.get(node.op_type, set()):
        return False
    return node.op_type in OPERATORS or (node.op_type == "Split" and len(node.input) == 2)


def is_packed(graph: onnx.GraphProto) -> bool:
    """Whether weights of it are decoded when it is loaded, as `quantize.pack` has it."""
    if graph.name != MARK:
        return False
    narrow = {tensor.name for tensor in graph.initializer if tensor.data_type in NARROW}
    return any(node.op_type in TELLING or narrow.intersection(node.input) for node in decoders(graph))


def inlined(path: Path) -> onnx.ModelProto:
    """A graph with its functions put in, external data left where they are."""
    return inline_local_functions(onnx.load(path, load_external_data=False))


def unpacked(path: Path) -> onnx.ModelProto:
    """A graph with all weights inside as they decode, each an initializer; one that is not packed as it is.

    Raises:
        StageError: a weight decodes to more than can be.
    """
    proto = inline_local_functions(load_whole(path))
    if not is_packed(proto.graph):
        return proto
    graph, nodes = proto.graph, decoders(proto.graph)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in nodes:
        values.update(zip(node.output, _decoded(node, [values[name] for name in node.input]), strict=True))
    names = {name for node in nodes for name in node.output}
    refill(graph.node, [node for node in graph.node if names.isdisjoint(node.output)])
    read = reads(graph)
    stay = [tensor for tensor in graph.initializer if tensor.name in read]
    new = [onnx.numpy_helper.from_array(values[name], name) for name in values if name in names & read]
    refill(graph.initializer, [*stay, *new])
    return proto


def _decoded(node: onnx.NodeProto, inputs: Sequence[Array]) -> Iterator[Array]:
    if node.op_type == "Split":
        yield from np.split(inputs[0], np.cumsum(inputs[1])[:-1])
        return
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    yield OPERATORS[node.op_type](inputs, attributes)
