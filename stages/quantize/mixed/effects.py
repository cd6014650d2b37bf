"""What each width does to each layer's network: measured on activations that are computed once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipeline.base.targets.labelling import Labelling
from pipeline.forms.graph import refill
from pipeline.forms.sandbox.frames import Arrays
from pipeline.measure.sensitivity.behind import Behind, behind
from pipeline.measure.sensitivity.divergence import divergence
from pipeline.measure.sensitivity.replay import Replay
from stages.quantize.halves.numbers import LARGEST
from stages.quantize.mixed.units import Unit, largest_inputs
from stages.quantize.rounding.layers import Scheme
from stages.quantize.rounding.layout import LINEAR
from stages.quantize.rounding.rounder import Entry

Activations = Literal["static", "dynamic", "float", "half"]


@dataclass(frozen=True)
class Trial:
    """How layers are tried.

    Args:
        widths: the integers that weights may take, by what the width is called.
        activations: what layers read in 8 bits: static has the range of all batches, dynamic that of each; or what
            they read and give in fp16: half; float leaves them.
        output: name of the output that counts.
        labelling: of logits; None where answers are something else.
        is_reduced: whether 8 bits are 7.
    """

    widths: Mapping[str, Scheme]
    activations: Activations
    output: str
    labelling: Labelling | None
    is_reduced: bool = False


def effects(
    source: Path, proto: onnx.ModelProto, units: Sequence[Unit], batches: Iterable[Arrays], trial: Trial
) -> list[Entry]:
    """For each unit its nodes, its size, and at each width that fits it the mean divergence of the network's answers.

    One unit at a time is quantized, all else stays as it is. What is in front of it is computed once, for all.

    Args:
        source: the graph's file; others are written beside it.
        proto: the same graph with its weights.
        units: see `units_of`.
        batches: examples, name -> (B, ...); no more are read than there is room for their values.
        trial: what is tried.

    Raises:
        ValueError: values that nodes read are not finite.
    """
    parts = [behind(proto, unit.names, trial.output) for unit in units]
    names = {name for part in parts if part for name in part.sources}
    replay = Replay(source, trial.output, names)
    replay.read(batches)
    entries = [_entry(unit, part, replay, trial) for unit, part in zip(units, parts, strict=True)]
    if len(proto.graph.output) > 1:
        _assume(entries, [entry for entry, part in zip(entries, parts, strict=True) if part is None])
    return entries


def _assume(entries: list[Entry], unseen: list[Entry]) -> None:
    """Give layers that other outputs alone depend on the largest effect of all, in place: it is not known."""
    for entry in unseen:
        entry["effects"] = {width: max(one["effects"].get(width, 0.0) for one in entries) for width in entry["effects"]}


def _entry(unit: Unit, part: Behind | None, replay: Replay, trial: Trial) -> Entry:
    widths = {width: scheme for width, scheme in trial.widths.items() if unit.fits(scheme)}
    measured = dict.fromkeys(widths, 0.0)
    if part and widths:
        _round_activations(part, unit, replay, trial.activations)
        session = replay.part(part, [layer.weight for layer in unit.layers])
        for width, scheme in widths.items():
            weights = unit.rounded(scheme, is_reduced=trial.is_reduced)
            measured[width] = divergence(session.answers(weights), trial.labelling)
    fields = {"nodes": unit.names, "operator": unit.nodes[0].op_type, "elements": unit.elements}
    return {**fields, "effects": measured, "examples": replay.examples}


def _round_activations(part: Behind, unit: Unit, replay: Replay, activations: Activations) -> None:
    """Have layers of the unit read rounded values and, where these are in fp16, give them, in place."""
    linear = {node.name for node in unit.nodes if node.op_type in LINEAR}
    if activations == "float" or not linear:
        return
    ranges = largest_inputs(unit, replay.batches) if activations == "static" else {}
    graph, nodes = part.proto.graph, list[onnx.NodeProto]()
    for node in graph.node:
        if node.name not in linear:
            nodes.append(node)
        elif activations == "half":
            nodes += _computed_in_fp16(node)
        else:
            added, constants = _in_8_bits(node.input[0], node.name, ranges.get(node.input[0]))
            graph.initializer.extend(constants)
            node.input[0] = added[-1].output[0]
            nodes += [*added, node]
    refill(graph.node, nodes)


def _computed_in_fp16(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The node, which is changed, between those that round what it reads and gives."""
    before, after = _in_fp16(node.input[0], f"{node.name}_read"), _in_fp16(f"{node.name}_raw", f"{node.name}_given")
    node.input[0], after[-1].output[0], node.output[0] = before[-1].output[0], node.output[0], f"{node.name}_raw"
    return [*before, node, *after]


def _in_fp16(name: str, key: str) -> list[onnx.NodeProto]:
    """The nodes that round a value to fp16; what is beyond becomes the largest, so that its effect is a number."""
    low, high, least, most, half, back = (f"{key}_{part}" for part in ("low", "high", "least", "most", "half", "back"))
    ends = {low: -LARGEST["fp16"], high: LARGEST["fp16"]}
    constants = [
        helper.make_node("Constant", [], [end], value=numpy_helper.from_array(np.float32(value).reshape(())))
        for end, value in ends.items()
    ]
    return [
        *constants,
        helper.make_node("Max", [name, low], [least]),
        helper.make_node("Min", [least, high], [most]),
        helper.make_node("Cast", [most], [half], to=onnx.TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [back], to=onnx.TensorProto.FLOAT),
    ]


def _in_8_bits(
    name: str, reader: str, ends: tuple[float, float] | None
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The nodes that round a value to 256 steps, between fixed ends or between those of each batch."""
    integers, scale, zero, rounded = (f"{reader}_{part}" for part in ("integers", "scale", "zero", "rounded"))
    back = helper.make_node("DequantizeLinear", [integers, scale, zero], [rounded])
    if ends is None:
        return [helper.make_node("DynamicQuantizeLinear", [name], [integers, scale, zero]), back], []
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    if not np.isfinite(high - low):
        raise ValueError(f"what the node `{reader}` reads is not finite")
    step = (high - low) / 255 or 1.0
    tensors = {scale: np.float32(step), zero: np.uint8(np.clip(np.rint(-low / step), 0, 255))}
    constants = [numpy_helper.from_array(np.asarray(value), key) for key, value in tensors.items()]
    return [helper.make_node("QuantizeLinear", [name, scale, zero], [integers]), back], constants
