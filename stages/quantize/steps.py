"""What ONNX Runtime's tools do, from file to file: in this process, or in a `child`. It imports no torch."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import onnx

from stages.quantize.calibration_data import CalibrationData
from stages.quantize.graphs.exact import exact_names
from stages.quantize.graphs.masks import hidden_weights, masked, touching
from stages.quantize.graphs.rewrite import (
    chosen,
    deep_products,
    own_inputs,
    own_weights,
    plain_gemms,
    share_copies,
    split_gemm,
    torn_weights,
    transpose_gemms,
)
from stages.quantize.graphs.tied_embeddings import Tied
from stages.quantize.graphs.versions import raised
from stages.quantize.rounding.rounder import Entry, Rounder

Left = dict[str, list[str]]
"""Names of the nodes that a step leaves in fp32, by the reason."""
MASK, WEIGHT, RANGE, EXACT, DEEP, WHOLE = "mask", "weight", "range", "exact", "axes", "whole"
NEAREST, BIAS = "nearest", "bias"
NOTES = (WHOLE, NEAREST, BIAS)
"""Reasons that do not leave a node in fp32."""
METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile", "mse": "Entropy"}


class Done(NamedTuple):
    """What a step says of its work.

    Args:
        left: the nodes that it leaves in fp32 by itself, or did otherwise than asked.
        layers: what became of each layer's weight.
    """

    left: Left = {}
    layers: list[Entry] = []


def do(step: str, source: Path, target: Path, external: bool, settings: dict[str, Any], data: CalibrationData) -> Done:
    """Write what a step makes of a graph; what it says of that.

    Args:
        step: name of a function below.
        source: the graph's file.
        target: the file to write.
        external: whether weights go to files beside it.
        settings: of the step, JSON.
        data: read where there are batches.
    """
    arguments = {**settings, "data": data} if len(data) else settings
    function = {function.__name__: function for function in (prepare, static, dynamic, optimum, optimized)}[step]
    return function(source, target, external, **arguments)


def prepare(source: Path, target: Path, external: bool) -> Done:
    """The graph as the quantizers want it: not too old, constants and norms folded, shapes inferred, biases flat."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    _save(raised(onnx.load(source)), source, external)
    with _no_fallback():
        # ONNX's own shape inference suffices; the symbolic one stops at transformers from the torch exporter.
        quant_pre_process(source, target, skip_symbolic_shape=True, save_as_external_data=external)
    proto = onnx.load(target)
    plain_gemms(proto.graph)
    _save(proto, target, external)
    return Done()


def static(
    source: Path,
    target: Path,
    external: bool,
    *,
    data: CalibrationData,
    calibration: str,
    percentile: float,
    weights: dict[str, Any],
    **settings: Any,
) -> Done:
    """The graph with 8-bit weights and activations; the arguments are those of `quantize.static` and of its library."""
    from onnxruntime.quantization.calibrate import save_tensors_data

    from stages.quantize.calibration import ranges_of

    proto = onnx.load(source)
    graph, operators, exclude = proto.graph, settings["op_types_to_quantize"], settings.pop("nodes_to_exclude")
    asked = chosen(graph, operators, exclude)
    masks, exact = masked(graph), exact_names(graph)
    values = {MASK: masks, WEIGHT: hidden_weights(graph, operators) - masks}
    free = chosen(graph, operators, [*exclude, *exact, *touching(graph, values[MASK] | values[WEIGHT])])
    ends = {name for node in free.values() for name in (*node.input, *node.output)}
    whole = {*deep_products(graph).values(), *torn_weights(graph)} if settings["per_channel"] else None
    rounder = Rounder(graph, free, whole, settings["reduce_range"], **weights)
    rounder.watch(source, data)
    ranges, values[RANGE] = ranges_of(source, target.parent, ends, data, calibration, percentile)
    save_tensors_data(ranges, target.parent / "ranges.json")
    left = {why: [name for name in touching(graph, names) if name in asked] for why, names in values.items()}
    left[EXACT] = [name for name in exact if name in asked]
    rounder.choose(left[RANGE])
    uncorrected = rounder.correct(graph)
    if weights["bias_correction"]:
        _save(proto, source, external)
    exclude = [*exclude, *(name for names in left.values() for name in names)]
    _write_qdq(source, target, external, whole or set(), METHODS[calibration], nodes_to_exclude=exclude, **settings)
    proto = onnx.load(target)
    entries = rounder.put(proto.graph)
    if rounder.choices:
        _save(proto, target, external)
    shared = [node.name for node in free.values() if (whole or set()).intersection(node.input)]
    return Done(left | {WHOLE: shared, NEAREST: rounder.unheeding, BIAS: uncorrected}, entries)


def _write_qdq(
    source: Path, target: Path, external: bool, whole: set[str], method: str, activations: str, **settings: Any
) -> None:
    """Have ONNX Runtime quantize a graph, with the ranges that lie beside the target."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        source,
        target,
        None,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8 if activations == "uint8" else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
        calibration_cache_path=target.parent / "ranges.json",
        use_external_data_format=external,
        # ONNX Runtime makes the same integers of biases in fp32 when it loads the file, without scales and a node for
        # each. A list of one entry means one scale for the whole weight.
        extra_options={
            "QuantizeBias": False,
            "TensorQuantOverrides": {name: [{"quant_type": QuantType.QInt8}] for name in whole},
        },
        **settings,
    )


def dynamic(
    source: Path,
    target: Path,
    external: bool,
    *,
    operators: list[str],
    exclude: list[str],
    per_channel: bool,
    reduce_range: bool,
    weights: dict[str, Any],
    data: CalibrationData | None = None,
) -> Done:
    """The graph with 8-bit weights by ONNX Runtime; the arguments are those of `quantize.dynamic`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    proto = transpose_gemms(onnx.load(source))
    graph = proto.graph
    copies = own_weights(graph)
    left = touching(graph, hidden_weights(graph, operators))
    tied = Tied()
    apart = [] if exclude or left or not {"Gather", "MatMul"} <= {*operators} else tied.nodes(graph)
    nodes_to_exclude = [*exclude, *left, *apart]
    nodes = chosen(graph, operators, nodes_to_exclude)
    deep = {name: weight for name, weight in deep_products(graph).items() if per_channel and name in nodes}
    before = onnx.GraphProto()
    before.CopyFrom(graph)  # for ONNX Runtime changes what it is given
    whole = {*deep.values(), *(node.input[1] for node in nodes.values() if node.op_type == "Conv")}
    copied = chosen(before, operators, nodes_to_exclude)
    rounder = Rounder(before, copied, whole if per_channel else None, reduce_range, **weights)
    if data:
        rounder.watch(source, data)
        data.read()
    rounder.choose([])
    # Named one by one: ONNX Runtime makes MatMuls of Gemms first, so neither `Gemm` nor an excluded Gemm's name would
    # be heard; and an empty list would mean all.
    flat = [split_gemm(node) for name, node in nodes.items() if name not in deep]
    for names, by_channel in (([*deep], False), (flat or [""], per_channel)):
        if names:
            own_inputs(proto.graph, deep.keys() & names)
            quantize_dynamic(
                proto,
                target,
                op_types_to_quantize=sorted({"MatMul" if name == "Gemm" else name for name in operators}),
                nodes_to_quantize=names,
                per_channel=by_channel,
                reduce_range=reduce_range,
                weight_type=QuantType.QInt8,
                use_external_data_format=external,
            )
            proto = onnx.load(target)
    entries = rounder.put(proto.graph)
    if apart:
        tied.share(before, proto.graph)
    share_copies(proto.graph, copies)
    _save(proto, target, external)
    return Done({WEIGHT: left, WHOLE: [*deep], NEAREST: rounder.unheeding}, entries)


def optimum(
    source: Path,
    target: Path,
    external: bool,
    *,
    preset: str,
    nodes_to_exclude: list[str],
    tied: Tied | None = None,
    **settings: Any,
) -> Done:
    """The graph with 8-bit weights by Optimum; `source` is changed.

    Args:
        source, target, external: as in `do`.
        preset: Optimum's name of a CPU.
        nodes_to_exclude: names of nodes to leave alone.
        tied: what is known of the tables of other graphs of the model.
        settings: arguments of the preset.
    """
    from transformers import PretrainedConfig

    from pipeline.forms.deployed.seq2seq import hush

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
        quantizer.quantize(config, target.parent, file_suffix="optimum", use_external_data_format=external)
    after = onnx.load(source.with_name(f"{source.stem}_optimum.onnx"))
    if apart:
        tied.share(proto.graph, after.graph)
    share_copies(after.graph, copies)
    onnx.save(after, target, save_as_external_data=external)
    return Done(left)


def optimized(source: Path, target: Path, external: bool) -> Done:
    """The graph as ONNX Runtime runs it, constants folded and operators fused, its weights in a file beside it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(target)
    # The next level brings layouts that this CPU likes, whose operators have a domain of their own.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    entry = "session.optimized_model_external_initializers_file_name"
    options.add_session_config_entry(entry, f"{target.name}.data")
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return Done()


def _save(proto: onnx.ModelProto, path: Path, external: bool) -> None:
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)  # a file that is there would be added to
    onnx.save(proto, path, save_as_external_data=external, location=f"{path.name}.data")


@contextmanager
def _no_fallback() -> Iterator[None]:
    """Raise what stopped the optimization, which the pre-processing would log, to go on without."""

    def again(_: logging.LogRecord) -> bool:
        if error := sys.exc_info()[1]:
            raise error
        return True

    with patch.object(logging.getLogger("onnxruntime.quantization.shape_inference"), "filters", [again]):
        yield
