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
    from transformers import PretrainedConfig

    from pipeline.forms.deployed.seq2seq import hush

    source, external = files.source, files.external
    tied = tied or Tied()
    with hush():
        from optimum.onnxruntime import AutoQuantizationConfig, ORTQuantizer

        proto = transpose_gemms(onnx.load(source))
        copies = own_weights(proto.graph)
        onnx.save(proto, source, save_as_external_data=external)
        operators = settings["operators_to_quantize"]
        left = {WEIGHT: touching(proto.graph, hidden_weights(proto.graph, operators)), DEEP: []}
        if settings["per_channel"]:
            left[DEEP] = [*deep_products(proto.graph)]
        apart = tied.nodes(proto.graph) if "Gather" in operators else []
        exclude = [*nodes_to_exclude, *left[WEIGHT], *left[DEEP], *apart]
        config = getattr(AutoQuantizationConfig, preset)(is_static=False, nodes_to_exclude=exclude, **settings)
        # With a configuration of its own it looks for none.
        quantizer = ORTQuantizer(source, config=PretrainedConfig())
        quantizer.quantize(config, files.target.parent, file_suffix="optimum", use_external_data_format=external)
    after = onnx.load(source.with_name(f"{source.stem}_optimum.onnx"))
    if apart:
        tied.share(proto.graph, after.graph)
    share_copies(after.graph, copies)
    onnx.save(after, files.target, save_as_external_data=external)
    return Done(left)
