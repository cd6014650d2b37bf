"""Nodes whose answer turns with a small change of what they read, and what is computed for them alone.

Eight bits of an angle, of a position that becomes an index, or of a value that is compared are another answer.
"""

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from pipeline.forms.graph import QUANTIZED, graphs_in, graphs_inside, reads
from stages.quantize.graphs.masks import FLOATS

COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual")
STEPS = ("Ceil", "Floor", "Mod", "Round", "Sign")
WAVES = ("Cos", "Sin", "Tan")
DEQUANTIZED = "_DequantizeLinear_Output"
"""What ONNX Runtime appends to the name of a value for what comes back from 8 bits."""


def needs_exact(node: onnx.NodeProto) -> bool:
    """Whether it compares, steps, goes round, or makes whole numbers of real ones."""
    is_cast = node.op_type == "Cast" and any(a.name == "to" and a.i not in FLOATS for a in node.attribute)
    return is_cast or node.op_type in (*COMPARISONS, *STEPS, *WAVES)


def exact_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes that need exact values, and those that only they read; the last of the graph first."""
    read = {name for part in graphs_in(graph) for name in reads(part)}
    unread = {name for node in graph.node for name in node.output} - read
    needed = {value.name for value in graph.output} | unread
    for node in reversed(graph.node):
        inner = {name for part in graphs_inside(node) for name in reads(part)}
        if node.op_type in QUANTIZED or (not needs_exact(node) and needed.intersection((*node.output, *inner))):
            needed.update(node.input, inner)
        else:
            yield node


def exact_names(graph: onnx.GraphProto) -> list[str]:
    """Names of those nodes of a graph in fp32 that read or give real numbers."""
    values = (*graph.value_info, *graph.input, *graph.output)
    whole = {value.name for value in values if value.type.tensor_type.elem_type not in (*FLOATS, TensorProto.UNDEFINED)}
    whole |= {tensor.name for tensor in graph.initializer if tensor.data_type not in FLOATS}
    return [node.name for node in exact_nodes(graph) if not whole.issuperset((*node.input, *node.output))]


def read_exactly(graph: onnx.GraphProto) -> None:
    """Have the exact nodes of a quantized graph read values themselves and not what 8 bits leave of them.

    So a padding of -999 is told from other values as before.
    """
    there = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    for node in exact_nodes(graph):
        plain = [name.removesuffix(DEQUANTIZED) for name in node.input]
        node.input[:] = [a if a in there else b for a, b in zip(plain, node.input, strict=True)]
