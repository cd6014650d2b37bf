"""A graph with floats of 16 bits."""

import sys
from unittest.mock import patch

import onnx
from onnx import numpy_helper

from pipeline.forms.graph import opset, refill
from stages.quantize.graphs.order import put_in_order
from stages.quantize.graphs.reasons import LARGE
from stages.quantize.graphs.versions import OLDEST
from stages.quantize.halves.graph import floats, store, too_large
from stages.quantize.halves.numbers import LARGEST, Kind, loss
from stages.quantize.steps.files import Done, Files


def half(files: Files, *, kind: Kind, compute: str, apart: list[str]) -> Done:
    """The graph with weights of 16 bits, its inputs and outputs in fp32.

    Args:
        files: as in `do`.
        kind: of the numbers.
        compute: half where it computes in fp16 too.
        apart: names of the nodes to leave in fp32.

    Raises:
        ValueError: a weight has numbers that 16 bits do not hold.
    """
    proto = onnx.load(files.source)
    if kind == "bf16" and opset(proto) < OLDEST:
        raise ValueError(
            f"its opset {opset(proto)} has no bf16. Export it with opset {OLDEST} or newer, or set kind: fp16"
        )
    graph = proto.graph
    left = [name for name in too_large(graph) if name not in apart] if compute == "half" else []
    entries = []
    for tensor in floats(graph, [*apart, *left]):
        array = numpy_helper.to_array(tensor)
        lost = loss(array, kind)
        if lost.overflowing:
            problem = f"the weight `{tensor.name}` has {lost.overflowing} numbers beyond {LARGEST[kind]:g}"
            other = ", or set kind: bf16" if kind == "fp16" else ""
            raise ValueError(f"{problem}, which {kind} does not hold. Name its layer in `fp32`{other}")
        error = {"weights": lost.error}
        entries.append({"weight": tensor.name, "numbers": array.size, "error": error, "vanishing": lost.vanishing})
    if compute == "half":
        proto = _computing(proto, [*apart, *left])
    else:
        store(graph, kind, floats(graph, apart))
    files.save(proto, files.target)
    return Done({LARGE: left}, entries)


def _computing(proto: onnx.ModelProto, apart: list[str]) -> onnx.ModelProto:
    """What ONNX Runtime's own converter makes of the graph, which is changed."""
    with patch.object(sys, "path", [*sys.path]):  # importing it would leave a folder of its own there
        from onnxruntime.transformers.float16 import convert_float_to_float16
    converted: onnx.ModelProto = convert_float_to_float16(proto, keep_io_types=True, node_block_list=apart)
    # A value that several nodes read in fp32 is cast for each, to one name (findings/half_converter_casts_twice.sh).
    first = {node.output[0]: node for node in reversed(converted.graph.node)}
    refill(converted.graph.node, [node for node in converted.graph.node if first[node.output[0]] is node])
    put_in_order(converted.graph)  # casts of inputs stand behind what reads them
    return converted
