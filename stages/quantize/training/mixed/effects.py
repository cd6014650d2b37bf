"""How much a network's answers depend on the width of each layer, before it is trained with integers."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from pipeline.context import Context
from pipeline.measure.sensitivity.divergence import divergence
from pipeline.model import TorchModel
from stages.quantize.mixed.measuring import FILE, Row
from stages.quantize.rounding.settings import Codebook, label
from stages.quantize.training.mixed.keep import TrainedKeep
from stages.quantize.training.mixed.partly import answers
from stages.quantize.training.mixed.parts import Part

Layers = Mapping[str, int | str | Codebook]
"""The width of each layer, by its name."""
BATCH = 64
USUAL = 8
"""Bits, in the place of a codebook that is larger than a layer: its effect is not measured."""


def kept(
    keep: TrainedKeep,
    make: Callable[[Path], None],
    settings: dict[str, JsonValue],
    model: TorchModel,
    ctx: Context,
) -> list[Row]:
    """A row for each layer, measured once for a model.

    Args:
        keep: the widths, and how many calibration examples.
        make: calls `measure`, and stands in the file of what that is given: what is kept holds for its code alone.
        settings: those on which the effects depend beside the widths.
        model: that comes in.
        ctx: of the stage.
    """
    labelling = asdict(ctx.labelling) if ctx.logits else None
    widths: list[JsonValue] = [*map(label, keep.widths)]
    known = {**settings, "widths": widths, "compared": keep.examples, "output": ctx.output, "labelling": labelling}
    folder = ctx.kept("sensitivity to integers", model, known, make)
    return [Row(**row) for row in json.loads((folder / FILE).read_text())]


def measure(
    keep: TrainedKeep, parts: list[Part], untrained: Callable[[Layers], TorchModel], ctx: Context, to: Path
) -> None:
    """Write a row for each layer: the divergence of the answers where that alone is in integers, with what it reads.

    Args:
        keep: the widths, and how many calibration examples.
        parts: the layers.
        untrained: the network with such widths and calibrated ranges.
        ctx: of the stage.
        to: the folder.
    """
    split = ctx.calibration.select(list(range(min(len(ctx.calibration), keep.examples))))
    inputs = [batch.inputs for batch in split.loader(BATCH)]  # once, for they may be others each time
    effects: dict[str, dict[str, float]] = {part.name: {} for part in parts}
    before: list[Any] = []
    with ctx.progress("sensitivity of layers", len(parts) * len(keep.widths)) as advance:
        for width in keep.widths:
            fitting = [part for part in parts if width in keep.fitting(part)]
            start = untrained({part.name: width if part in fitting else USUAL for part in parts})
            start.module.to(ctx.device)
            before = before or answers(start, (), inputs, ctx.output)
            for part in fitting:
                pairs = zip(before, answers(start, (part.name,), inputs, ctx.output), strict=True)
                effects[part.name][label(width)] = divergence(pairs, ctx.labelling if ctx.logits else None)
                advance(1)
    rows = [Row(p.name, [*p.weights], p.operator, sum(p.sizes), effects[p.name], len(split)) for p in parts]
    (to / FILE).write_text(json.dumps([asdict(row) for row in rows]))
