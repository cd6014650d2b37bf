"""Quantized graphs: which of their constants are scales and zero points, and no weights."""

from collections.abc import Iterator
from functools import cache
from math import prod

import onnx

INTEGERS = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
PLACES = {"Gather": (0,), "Mul": (0, 1), "Reshape": (0,), "Squeeze": (0,), "Unsqueeze": (0,)}
"""Operators between a scale and the product with it, and which of their inputs lead on to it."""


def scales_and_zero_points(graph: onnx.GraphProto) -> set[str]:
    """Names of the values that an operator reads as scales or zero points, computed ones among them.

    Operators say so in their schemas. A scale is also what a Mul multiplies integers with that were cast to floats, as
    behind a MatMulInteger or the rows of a table in 8 bits.
    """
    names = {name for node in graph.node for name in _by_schema(node)}
    makers = {name: node for node in graph.node for name in node.output}
    integers = {tensor.name for tensor in graph.initializer if tensor.data_type in INTEGERS}
    numbers: set[str] = set()  # values that are integers, or are cast from them
    for node in graph.node:
        is_table = node.op_type == "Gather" and node.input[0] in integers
        is_cast = node.op_type == "Cast" and node.input[0] in numbers
        if is_table or is_cast or node.op_type in ("MatMulInteger", "ConvInteger"):
            numbers.add(node.output[0])
        elif node.op_type in ("Mul", "Sub") and (read := numbers.intersection(node.input)):
            others = [name for name in node.input if name not in read] or list(node.input[1:])
            names.update(source for name in others for source in _sources(name, makers))
            numbers.update(node.output if node.op_type == "Sub" else ())
    return names


def packed_elements(graph: onnx.GraphProto) -> dict[str, int]:
    """How many numbers a weight holds of which several lie in one byte, by its name."""
    counts = {}
    sizes = {tensor.name: prod(tensor.dims) for tensor in graph.initializer if tensor.data_type in INTEGERS}
    for node in graph.node:
        numbers = {a.name: a.i for a in node.attribute if a.type == onnx.AttributeProto.INT}
        if node.op_type == "MatMulNBits":
            counts[node.input[1]] = numbers["K"] * numbers["N"]
        elif node.op_type == "GatherBlockQuantized" and node.input[0] in sizes:
            counts[node.input[0]] = sizes[node.input[0]] * 8 // numbers.get("bits", 4)
    return counts


def _sources(name: str, makers: dict[str, onnx.NodeProto]) -> Iterator[str]:
    """A value and those of which it is made by moving and multiplying."""
    yield name
    node = makers.get(name)
    if node is not None and (node.op_type in PLACES or node.op_type == "Cast"):
        for place in PLACES.get(node.op_type, (0,)):
            yield from _sources(node.input[place], makers)


def _by_schema(node: onnx.NodeProto) -> Iterator[str]:
    if node.op_type == "QLinearConcat":  # its schema says of the parts that they are "inputs"
        yield from (name for i, name in enumerate(node.input) if i < 2 or i % 3 != 2)
        return
    parts = _schemas().get((node.domain.removeprefix("ai.onnx"), node.op_type), [])
    if any("zero_point" in part for part in parts):  # otherwise it is a norm's scale, which is a weight
        pairs = zip(parts, node.input, strict=False)
        yield from (name for part, name in pairs if name and ("scale" in part or "zero_point" in part))


@cache
def _schemas() -> dict[tuple[str, str], list[str]]:
    """The names of the inputs of each operator that ONNX Runtime has, by domain and operator."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    every = sorted(get_all_operator_schema(), key=lambda schema: schema.since_version)
    return {(schema.domain, schema.name): [part.name.lower() for part in schema.inputs] for schema in every}
