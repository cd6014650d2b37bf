"""ONNX graphs: walked, saved, stripped of what no runtime needs, renamed."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from pipeline.errors import StageError, blame

OPSET = 20
EXTERNAL_DATA_BYTES = 1_900_000_000  # protobuf ends at 2 GiB; above this the weights go to a file beside the graph
QDQ = ("QuantizeLinear", "DequantizeLinear")
BLOCKWISE = ("MatMulNBits", "GatherBlockQuantized")
"""Operators of ONNX Runtime whose weights have few bits, and a scale for each block of a row."""
QUANTIZED = {
    *QDQ, *BLOCKWISE, "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul"
}  # fmt: skip
"""Operators that a quantized graph alone has."""
TOOLS = ("pkg.", "onnx.")
"""How the metadata of a file begin that exporters and quantizers write for themselves; others are its user's."""


def graphs_in(body: onnx.GraphProto | onnx.FunctionProto) -> Iterator[Any]:
    """A graph, or a function's body, and the graphs inside its nodes, which see its names."""
    yield body
    for node in body.node:
        yield from graphs_inside(node)


def graphs_inside(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs inside a node, such as the body of a loop, and those inside their nodes."""
    for graph in graphs_of(node):
        yield from graphs_in(graph)


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """A node's own graphs, without those inside their nodes."""
    for attribute in node.attribute:
        yield from (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)


def reads(graph: onnx.GraphProto) -> set[str]:
    """Names that a graph's nodes read, or that it gives as its outputs."""
    return {name for node in graph.node for name in node.input} | {value.name for value in graph.output}


def read_by(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, in the graphs inside it too."""
    return [*node.input, *(name for graph in graphs_inside(node) for name in sorted(reads(graph)))]


def opset(proto: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), OPSET)


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that have to be given: some files list their weights among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def output_names(path: Path) -> list[str]:
    """The names of a file's outputs, in their order."""
    return [value.name for value in onnx.load(path, load_external_data=False).graph.output]


def save(proto: onnx.ModelProto, path: Path) -> None:
    """Write and check a graph; weights of a large one go to a file beside it."""
    external = proto.ByteSize() > EXTERNAL_DATA_BYTES
    path.with_name(path.name + ".data").unlink(missing_ok=True)
    onnx.save(proto, path, save_as_external_data=external, location=path.name + ".data")
    with blame(StageError, path.name):
        onnx.checker.check_model(path)


def strip(proto: onnx.ModelProto) -> None:
    """Remove what no runtime needs: stack traces, doc strings, shapes inside the graph, attributes at their default.

    What the file's user wrote into its metadata, such as a detector's class names, stays.
    """
    refill(proto.metadata_props, [entry for entry in proto.metadata_props if not entry.key.startswith(TOOLS)])
    standard = opset(proto)
    for graph in graphs_in(proto.graph):
        # Some entries name initializers with another shape than theirs and make ONNX Runtime's quantizer fail.
        graph.ClearField("value_info")
        for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
        drop_defaults(graph.node, standard)
    bodies = (body for part in (proto.graph, *proto.functions) for body in graphs_in(part))
    called = {(node.domain, node.op_type) for body in bodies for node in body.node}
    refill(proto.functions, [function for function in proto.functions if (function.domain, function.name) in called])
    used = {domain for domain, _ in called} | {""}
    refill(proto.opset_import, [entry for entry in proto.opset_import if entry.domain in used])


def refill(messages: Any, others: Sequence[Any]) -> None:
    """Put others, of which it may have some already, in the place of what a repeated field holds."""
    del messages[:]
    messages.extend(others)


def rename(graph: onnx.GraphProto, side: str, names: list[str]) -> None:
    """Give the graph's inputs or outputs the names that the task knows, in order."""
    old = [value.name for value in getattr(graph, side)]
    if len(old) != len(names):
        problem = f"the graph has {len(old)} {side}s and the model {len(names)}"
        fix = "Let the forward return a tensor, or a flat tuple or dictionary of tensors"
        raise StageError(problem, where="ONNX export", expected=f"the {side}s {', '.join(names)}", fix=fix)
    mapping = {a: b for a, b in zip(old, names, strict=True) if a != b}
    # A value inside the graph that has one of these names already makes way.
    inner = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    inner -= set(old)
    mapping |= {name: f"{name}_inner" for name in sorted(inner & set(names))}
    for value in (*getattr(graph, side), *graph.initializer):
        value.name = mapping.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [mapping.get(name, name) for name in node.input]
        node.output[:] = [mapping.get(name, name) for name in node.output]


ONES, ZEROS = ("strides", "dilations"), ("pads",)
WINDOWS = ("Conv", "ConvTranspose", "AveragePool", "MaxPool")
"""Operators of which the standard says in words that strides and dilations are 1 and pads 0 unless given."""


def drop_defaults(nodes: Iterable[onnx.NodeProto], opset: int) -> None:
    """Remove from nodes of the standard domain each attribute that has its default value."""
    for node in nodes:
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type):
            continue
        schema_attributes = onnx.defs.get_schema(node.op_type, opset).attributes
        refill(node.attribute, [a for a in node.attribute if not _is_default(node.op_type, a, schema_attributes)])


def _is_default(
    operator: str, attribute: onnx.AttributeProto, schema_attributes: dict[str, onnx.defs.OpSchema.Attribute]
) -> bool:
    if operator in WINDOWS and attribute.name in ONES + ZEROS:
        return set(attribute.ints) == {1 if attribute.name in ONES else 0}
    default = schema_attributes[attribute.name].default_value if attribute.name in schema_attributes else None
    if default is None or default.type != attribute.type:
        return False
    value = onnx.helper.get_attribute_value
    return bool(value(default) == value(attribute))
