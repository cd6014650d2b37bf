"""A graph with floats of 16 bits."""

import math
import sys
from unittest.mock import patch

import onnx
from onnx import numpy_helper

from pipeline.forms.graph import opset, read_by
from stages.quantize.graphs.masks import touching
from stages.quantize.graphs.order import put_in_order
from stages.quantize.graphs.reasons import LARGE
from stages.quantize.graphs.versions import OLDEST
from stages.quantize.halves.casts import tidy_casts
from stages.quantize.halves.graph import floats, store, too_large
from stages.quantize.halves.numbers import LARGEST, Kind, Loss, loss
from stages.quantize.rounding.rounder import Entry
from stages.quantize.steps.files import Done, Files


def half(files: Files, *, kind: Kind, compute: str, apart: list[str], spares: bool) -> Done:
    """The graph with weights of 16 bits, its inputs and outputs in fp32.

    Args:
        files: as in `do`.
        kind: of the numbers.
        compute: half where it computes in fp16 too.
        apart: names of the nodes to leave in fp32.
        spares: whether nodes are left in fp32, too, of which a weight has numbers that 16 bits do not hold.

    Raises:
        ValueError: a weight has such numbers, and none is spared.
    """
    proto = onnx.load(files.source)
    if kind == "bf16" and opset(proto) < OLDEST:
        raise ValueError(
            f"its opset {opset(proto)} has no bf16. Export it with opset {OLDEST} or newer, or set kind: fp16"
        )
    graph = proto.graph
    left = [name for name in too_large(graph) if name not in apart] if compute == "half" else []
    losses = {t.name: loss(numpy_helper.to_array(t), kind) for t in floats(graph, [*apart, *left])}
    beyond = [name for name, lost in losses.items() if lost.overflowing]
    if beyond and not spares:
        problem = f"the weight `{beyond[0]}` has {losses[beyond[0]].overflowing} numbers beyond {LARGEST[kind]:g}"
        other = ", or set kind: bf16" if kind == "fp16" else ""
        raise ValueError(f"{problem}, which {kind} does not hold. Name its layer in `fp32`{other}")
    left += [name for name in touching(graph, beyond) if name not in left]
    stored = [*floats(graph, [*apart, *left])]
    entries = [entry for tensor in stored for entry in _entries(graph, tensor, losses[tensor.name])]
    if compute == "half":
        proto = _computing(proto, [*apart, *left])
    else:
        store(graph, kind, stored)
    files.save(proto, files.target)
    return Done({LARGE: left}, entries)


def _entries(graph: onnx.GraphProto, tensor: onnx.TensorProto, lost: Loss) -> list[Entry]:
    """For each node that reads a weight what becomes of that."""
    entry = {"weight": tensor.name, "numbers": math.prod(tensor.dims), "error": {"weights": lost.error}}
    names = [node.name for node in graph.node if tensor.name in read_by(node)]
    return [{"node": name, **entry, "vanishing": lost.vanishing} for name in names]


def _computing(proto: onnx.ModelProto, apart: list[str]) -> onnx.ModelProto:
    """What ONNX Runtime's own converter makes of the graph, which is changed."""
    with patch.object(sys, "path", [*sys.path]):  # importing it would leave a folder of its own there
        import onnxruntime.quantization.shape_inference  # noqa: F401  # which reads that folder, too
        from onnxruntime.transformers.float16 import convert_float_to_float16
    before = {node.name for node in proto.graph.node}
    converted: onnx.ModelProto = convert_float_to_float16(proto, keep_io_types=True, node_block_list=apart)
    tidy_casts(converted.graph, before)
    put_in_order(converted.graph)  # casts of inputs stand behind what reads them
    return converted
