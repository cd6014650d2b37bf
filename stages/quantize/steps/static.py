"""A graph with 8-bit weights and activations by ONNX Runtime."""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import onnx

from stages.quantize.balance.balance import balanced
from stages.quantize.graphs.exact import exact_names
from stages.quantize.graphs.masks import hidden_weights, masked, touching
from stages.quantize.graphs.reasons import BIAS, EXACT, MASK, NEAREST, RANGE, WEIGHT, WHOLE
from stages.quantize.graphs.rewrite import chosen, deep_products, torn_weights
from stages.quantize.quantizing.calibration_data import CalibrationData
from stages.quantize.rounding.rounder import Entry, Rounder, Rounding
from stages.quantize.steps.files import Done, Files

METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile", "mse": "Entropy"}
RANGES = "ranges.json"
SUMS = ".npz"
"""How the file beside kept ranges ends that has the sums over what layers read."""
KNOWN = ".known"
"""How the file beside kept ranges ends: the names of the values that were looked at, and of those that have none."""


def static(
    files: Files,
    *,
    data: CalibrationData,
    calibration: str,
    percentile: float,
    weights: dict[str, Any],
    balance: dict[str, Any],
    ranges: str | None = None,
    **settings: Any,
) -> Done:
    """The graph with 8-bit weights and activations; `source` may be changed.

    Args:
        files: as in `do`.
        data: what ranges are measured on.
        calibration, percentile: of `quantize.static`.
        weights: of `Rounding`.
        balance: of `Balance`.
        ranges: a file where they are kept: read where it has all that is needed, else written.
        settings: further ones of `quantize.static`, and arguments of ONNX Runtime's quantizer.
    """
    data, notes = balanced(files, data, balance)
    proto = onnx.load(files.source)
    graph, operators, exclude = proto.graph, settings["op_types_to_quantize"], settings.pop("nodes_to_exclude")
    asked = chosen(graph, operators, exclude)
    masks, exact = masked(graph), exact_names(graph)
    values = {MASK: masks, WEIGHT: hidden_weights(graph, operators) - masks}
    free = chosen(graph, operators, [*exclude, *exact, *touching(graph, values[MASK] | values[WEIGHT])])
    whole = {*deep_products(graph).values(), *torn_weights(graph)} if settings["per_channel"] else None
    rounder = Rounder(graph, free, whole, Rounding(reduce_range=settings["reduce_range"], **weights))
    kept = Path(ranges) if ranges else None
    sums = kept.with_suffix(SUMS) if kept else None
    rounder.watch(files.source, data, sums)
    values[RANGE] = _write_ranges(files, free.values(), data, calibration, percentile, kept)
    if sums and rounder.moments and data.also:
        rounder.moments.save(sums)
    left = {why: [name for name in touching(graph, names) if name in asked] for why, names in values.items()}
    left[EXACT] = [name for name in exact if name in asked]
    rounder.choose(left[RANGE])
    uncorrected = rounder.correct(graph)
    if weights["bias_correction"]:
        files.save(proto, files.source)
    exclude = [*exclude, *(name for names in left.values() for name in names)]
    _write_qdq(files, whole or set(), METHODS[calibration], nodes_to_exclude=exclude, **settings)
    entries = _put(files, rounder)
    shared = [node.name for node in free.values() if (whole or set()).intersection(node.input)]
    return Done(left | notes | {WHOLE: shared, NEAREST: rounder.unheeding, BIAS: uncorrected}, entries)


def _put(files: Files, rounder: Rounder) -> list[Entry]:
    """Put the chosen integers into the quantized graph; what is to be told of them."""
    proto = onnx.load(files.target)
    entries = rounder.put(proto.graph)
    if rounder.choices:
        files.save(proto, files.target)
    return entries


def _write_ranges(
    files: Files,
    nodes: Iterable[onnx.NodeProto],
    data: CalibrationData,
    calibration: str,
    percentile: float,
    kept: Path | None,
) -> set[str]:
    """Measure the ranges of what nodes read and write, for `_write_qdq`; the names of those that 8 bits cannot hold.

    Where they are kept they are not measured, and the data are read only where rounding heeds them.
    """
    from onnxruntime.quantization.calibrate import save_tensors_data

    from stages.quantize.quantizing.calibration import ranges_of

    values, path = {name for node in nodes for name in (*node.input, *node.output)}, files.target.with_name(RANGES)
    known = json.loads(kept.with_suffix(KNOWN).read_text()) if kept and kept.exists() else {"values": [], "hidden": []}
    if kept and values <= {*known["values"]}:
        if data.also:
            data.read()
        path.write_bytes(kept.read_bytes())
        return {*known["hidden"]} & values
    ranges, hidden = ranges_of(files.source, files.target.parent, values, data, calibration, percentile)
    save_tensors_data(ranges, path)
    if kept:
        kept.with_suffix(KNOWN).write_text(json.dumps({"values": sorted(values), "hidden": sorted(hidden)}))
        kept.write_bytes(path.read_bytes())
    return hidden


def _write_qdq(files: Files, whole: Collection[str], method: str, activations: str, **settings: Any) -> None:
    """Have ONNX Runtime quantize a graph, with the ranges that lie beside the target."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        files.source,
        files.target,
        None,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8 if activations == "uint8" else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
        calibration_cache_path=files.target.with_name(RANGES),
        use_external_data_format=files.external,
        # ONNX Runtime makes the same integers of biases in fp32 when it loads the file, without scales and a node for
        # each. A list of one entry means one scale for the whole weight.
        extra_options={
            "QuantizeBias": False,
            "TensorQuantOverrides": {name: [{"quant_type": QuantType.QInt8}] for name in whole},
        },
        **settings,
    )
