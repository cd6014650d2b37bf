"""A graph with 8-bit weights by Optimum."""

from typing import Any

import onnx

from stages.quantize.graphs.masks import hidden_weights, touching
from stages.quantize.graphs.reasons import DEEP, WEIGHT
from stages.quantize.graphs.rewrite import deep_products, own_weights, share_copies, transpose_gemms
from stages.quantize.graphs.tied_embeddings import Tied
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
    left = {WEIGHT: touching(graph, hidden_weights(graph, operators)), DEEP: deep}
    apart = tied.nodes(graph) if "Gather" in operators else []
    exclude = [*nodes_to_exclude, *left[WEIGHT], *left[DEEP], *apart]
    after = _quantized(files, preset, nodes_to_exclude=exclude, **settings)
    if apart:
        tied.share(graph, after.graph)
    share_copies(after.graph, copies)
    onnx.save(after, files.target, save_as_external_data=files.external)
    return Done(left)


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
