"""The casts that ONNX Runtime's converter puts between fp16 and fp32: each once, and none between two nodes in fp32."""

from collections.abc import Collection, Mapping

import onnx
from onnx import TensorProto

from pipeline.forms.graph import read_by, refill
from stages.quantize.rounding.layout import attributes


def tidy_casts(graph: onnx.GraphProto, before: Collection[str]) -> None:
    """Remove, in place, casts that are there twice, and those that take a value of fp32 to fp16 and back.

    A value that several nodes read in fp32 is cast for each, to one name (findings/half_converter_casts_twice.sh), and
    one between two nodes in fp32 is rounded to fp16 (findings/half_converter_rounds_between_fp32.sh).

    Args:
        graph: converted.
        before: names of the nodes that there were before.
    """
    added = {node.output[0]: node for node in graph.node if node.op_type == "Cast" and node.name not in before}
    others = [node for node in graph.node if node.output[0] not in added]
    inner = {name for node in others for name in read_by(node)[len(node.input) :]}
    back, ends = _back(added), {value.name for value in graph.output}
    for node in others:
        node.input[:] = [name if name in inner else back.get(name, name) for name in node.input]
    for name in back.keys() & ends:
        added[name].CopyFrom(onnx.helper.make_node("Identity", [back[name]], [name], added[name].name))
    read = ends | {name for node in others for name in read_by(node)}
    read |= {node.input[0] for name, node in added.items() if name in read}
    refill(graph.node, [*(node for name, node in added.items() if name in read), *others])


def _back(added: Mapping[str, onnx.NodeProto]) -> dict[str, str]:
    """The values that were taken to fp16 and back, and what they were, by name."""
    halves = {name: node.input[0] for name, node in added.items() if attributes(node)["to"] == TensorProto.FLOAT16}
    return {name: halves[node.input[0]] for name, node in added.items() if node.input[0] in halves}
