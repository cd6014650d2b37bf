"""A graph with 8-bit weights by Optimum."""

from collections.abc import Iterator
from typing import Any

import onnx

from stages.quantize.graphs.masks import FLOATS, hidden_weights, touching
from stages.quantize.graphs.reasons import DEEP, WEIGHT
from stages.quantize.graphs.rewrite import deep_products, own_weights, share_copies, split_gemm, transpose_gemms
from stages.quantize.graphs.tied_embeddings import Tied
from stages.quantize.rounding.layout import WEIGHTS
from stages.quantize.rounding.rounder import Entry
from stages.quantize.steps.files import Done, Files


def optimum(
    files: Files, *, preset: str, nodes_to_exclude: list[str], tied: Tied | None = None, **settings: Any
) -> Done:
    """The graph with 8-bit weights; `source` is changed.

    Args:
        files: as in `do`.
        preset: Optimum's name of a CPU.
        nodes_to_exclude: names of nodes to leave alone.
        tied: what is known of the tables of other graphs of the model.
        settings: arguments of the preset.
    """
    tied = tied or Tied()
    proto = transpose_gemms(onnx.load(files.source))
    graph, operators = proto.graph, settings["operators_to_quantize"]
    copies = own_weights(graph)
    onnx.save(proto, files.source, save_as_external_data=files.external)
    deep = [*deep_products(graph)] if settings["per_channel"] else []
    kinds = {*operators, "Gemm"} if "MatMul" in operators else operators
    left = {WEIGHT: touching(graph, hidden_weights(graph, kinds)), DEEP: deep}
    alone = {*nodes_to_exclude, *left[WEIGHT], *left[DEEP]}
    apart = tied.nodes(graph, alone) if "Gather" in operators else []
    # Of a Gemm ONNX Runtime first makes a MatMul, and heeds the name of that.
    exclude = [name for node in graph.node if node.name in {*alone, *apart} for name in _aliases(node)]
    after = _quantized(files, preset, nodes_to_exclude=exclude, **settings)
    if apart:
        tied.share(graph, after.graph, apart)
    entries = [*_entries(graph, after.graph)]
    share_copies(after.graph, copies)
    onnx.save(after, files.target, save_as_external_data=files.external)
    return Done(left, entries)


def _aliases(node: onnx.NodeProto) -> list[str]:
    return [*dict.fromkeys((node.name, split_gemm(node)))]


def _entries(before: onnx.GraphProto, after: onnx.GraphProto) -> Iterator[Entry]:
    """Each node with a weight that it no longer reads in fp32."""
    old, new = ({t.name for t in graph.initializer if t.data_type in FLOATS} for graph in (before, after))
    reads = {(node.name, name) for node in after.node for name in node.input if name in new}
    for node in before.node:
        weights = [node.input[place] for place in WEIGHTS.get(node.op_type, ()) if node.input[place] in old]
        if not any((alias, name) in reads for alias in _aliases(node) for name in weights):
            yield from ({"node": node.name, "weight": name, "bits": 8} for name in weights)


def _quantized(files: Files, preset: str, **settings: Any) -> onnx.ModelProto:
    """What Optimum makes of the file."""
    from transformers import PretrainedConfig

    from pipeline.forms.deployed.seq2seq import hush

    with hush():
        from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer

        config = getattr(AutoQuantizationConfig, preset)(is_static=False, **settings)
        # With a configuration of its own it looks for none.
        quantizer = ORTQuantizer(files.source, config=PretrainedConfig())
        external = files.external
        quantizer.quantize(config, files.target.parent, file_suffix="optimum", use_external_data_format=external)
    return onnx.load(files.target.with_name(f"{files.source.stem}_optimum.onnx"))
