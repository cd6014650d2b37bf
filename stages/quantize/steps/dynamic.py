"""A graph with 8-bit weights by ONNX Runtime."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import onnx

from stages.quantize.graphs.masks import hidden_weights, touching
from stages.quantize.graphs.reasons import NEAREST, WEIGHT, WHOLE
from stages.quantize.graphs.rewrite import (
    chosen,
    deep_products,
    own_inputs,
    own_weights,
    share_copies,
    split_gemm,
    transpose_gemms,
)
from stages.quantize.graphs.tied_embeddings import Tied
from stages.quantize.quantizing.calibration_data import CalibrationData
from stages.quantize.rounding.rounder import Rounder, Rounding
from stages.quantize.steps.files import Done, Files

Nodes = dict[str, onnx.NodeProto]


@dataclass(frozen=True)
class Settings:
    """Those of `quantize.dynamic`; `exclude` has names of the graph."""

    operators: list[str]
    exclude: list[str]
    per_channel: bool
    reduce_range: bool
    weights: dict[str, Any]


def dynamic(files: Files, *, data: CalibrationData | None = None, **arguments: Any) -> Done:
    """The graph with 8-bit weights.

    Args:
        files: as in `do`.
        data: read where roundings heed it.
        arguments: of `Settings`.
    """
    settings = Settings(**arguments)
    proto = transpose_gemms(onnx.load(files.source))
    copies = own_weights(proto.graph)
    graph = onnx.GraphProto()
    graph.CopyFrom(proto.graph)  # for ONNX Runtime changes what it is given
    left = touching(graph, hidden_weights(graph, settings.operators))
    tied = Tied()
    are_all = not (settings.exclude or left) and {"Gather", "MatMul"} <= {*settings.operators}
    apart = tied.nodes(graph) if are_all else []
    nodes = chosen(graph, settings.operators, [*settings.exclude, *left, *apart])
    deep = {name: weight for name, weight in deep_products(graph).items() if settings.per_channel and name in nodes}
    rounder = _rounder(graph, nodes, deep.values(), settings)
    if data:
        rounder.watch(files.source, data)
        data.read()
    rounder.choose([])
    proto = _quantized(proto, nodes, deep.keys(), files, settings)
    entries = rounder.put(proto.graph)
    if apart:
        tied.share(graph, proto.graph, apart)
    share_copies(proto.graph, copies)
    files.save(proto, files.target)
    return Done({WEIGHT: left, WHOLE: [*deep], NEAREST: rounder.unheeding}, entries)


def _rounder(graph: onnx.GraphProto, nodes: Nodes, deep: Collection[str], settings: Settings) -> Rounder:
    whole = {*deep, *(node.input[1] for node in nodes.values() if node.op_type == "Conv")}
    rounding = Rounding(reduce_range=settings.reduce_range, **settings.weights)
    return Rounder(graph, nodes, whole if settings.per_channel else None, rounding)


def _quantized(
    proto: onnx.ModelProto, nodes: Nodes, deep: Collection[str], files: Files, settings: Settings
) -> onnx.ModelProto:
    """What ONNX Runtime makes of a graph, which is changed, with one scale for each of the `deep` products' weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Named one by one: ONNX Runtime makes MatMuls of Gemms first, so neither `Gemm` nor an excluded Gemm's name would
    # be heard; and an empty list would mean all.
    flat = [split_gemm(node) for name, node in nodes.items() if name not in deep]
    for names, by_channel in (([name for name in nodes if name in deep], False), (flat or [""], settings.per_channel)):
        if names:
            own_inputs(proto.graph, {*deep} & {*names})
            quantize_dynamic(
                proto,
                files.target,
                op_types_to_quantize=sorted({"MatMul" if name == "Gemm" else name for name in settings.operators}),
                nodes_to_quantize=names,
                per_channel=by_channel,
                reduce_range=settings.reduce_range,
                weight_type=QuantType.QInt8,
                use_external_data_format=files.external,
            )
            proto = onnx.load(files.target)
    return proto
