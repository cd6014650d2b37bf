"""A mixture that was tried, and what is said of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from pipeline.base.estimate import Estimate
from pipeline.base.formatting import bytes_text
from pipeline.measure.size import size_bytes
from pipeline.model import OnnxModel
from pipeline.stage import Context
from stages.quantize.graphs.reasons import HALF
from stages.quantize.mixed.front import Mixture
from stages.quantize.mixed.keep import FLOATS, Keep
from stages.quantize.mixed.measuring import Row
from stages.quantize.rounding.settings import Codebook, label


@dataclass(frozen=True)
class Tried:
    """A mixture that was quantized and scored, and what the stage said of it.

    Args:
        mixture: a width for each unit.
        model: the file.
        estimate: what became of the score on validation.
        reports, warnings: of the stage.
    """

    mixture: Mixture
    model: OnnxModel
    estimate: Estimate
    reports: dict[str, JsonValue] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def quantized(self) -> set[str]:
        """The names of the nodes that were."""
        quantization: Any = self.reports.get("quantization", {})
        return {entry["node"] for entry in quantization.get("layers", [])}

    @property
    def halves(self) -> set[str]:
        """The names of the nodes whose weights are stored in fp16."""
        quantization: Any = self.reports.get("quantization", {})
        return {*quantization.get(HALF, [])}


def report(
    keep: Keep, rows: Sequence[Row], chosen: Tried, tried: Sequence[Tried], examples: int, ctx: Context
) -> OnnxModel:
    """The file, once everything is reported that the stage said of it, and what each layer became."""
    for name, value in chosen.reports.items():
        ctx.report(name, value)
    for text in chosen.warnings:
        ctx.warn(text)
    widths: dict[str, JsonValue] = {row.layer: _became(row, chosen, i) for i, row in enumerate(rows)}
    summary = {"limit": keep.text, "examples": examples, **_entry(chosen)}
    settings = _settings(rows, chosen)
    ctx.report("keep", {**summary, "widths": widths, "settings": settings, "tried": [_entry(one) for one in tried]})
    ctx.log.info("%s, of %d mixtures tried", figures(keep, chosen), len(tried))
    return chosen.model


def figures(keep: Keep, tried: Tried) -> str:
    """What became of the score, and of the weights."""
    counts = ", ".join(f"{count} of {width}" for width, count in _counts(tried.mixture).items())
    what = "retention" if keep.retention is not None else "drop"
    interval = f"{tried.estimate.value:.4f} [{tried.estimate.low:.4f}, {tried.estimate.high:.4f}]"
    return f"{what} {interval}, weights of {bytes_text(round(_size(tried.mixture)))} ({counts})"


def is_quantized(mixture: Mixture) -> bool:
    """Whether a layer of it is."""
    return any(choice.width not in FLOATS for choice in mixture)


def _became(row: Row, tried: Tried, place: int) -> JsonValue:
    """The width of a unit, as it came out: a layer that cannot have the integers that it was to have stays in fp32."""
    width = tried.mixture[place].width
    if tried.quantized.issuperset(row.nodes):
        return width if isinstance(width, int) else label(width)
    return "fp16" if tried.halves.issuperset(row.nodes) else "fp32"


def _settings(rows: Sequence[Row], tried: Tried) -> dict[str, JsonValue]:
    """The settings that make the same of the layers, but for weights in fp16."""
    layers: dict[str, JsonValue] = {}
    exclude: list[JsonValue] = []
    for row, choice in zip(rows, tried.mixture, strict=True):
        width = choice.width.model_dump() if isinstance(choice.width, Codebook) else choice.width
        if tried.quantized.issuperset(row.nodes):
            layers |= dict.fromkeys(row.nodes, width)
        else:
            exclude += row.nodes
    return {"layers": layers, "exclude": exclude}


def _entry(tried: Tried) -> dict[str, JsonValue]:
    return {
        "weights_bytes": round(_size(tried.mixture)),
        "size_bytes": size_bytes(tried.model),
        "counts": {**_counts(tried.mixture)},
        **tried.estimate.model_dump(),
    }


def _size(mixture: Mixture) -> float:
    return sum(choice.size for choice in mixture)


def _counts(mixture: Mixture) -> dict[str, int]:
    names = [f"{choice.width} bits" if isinstance(choice.width, int) else label(choice.width) for choice in mixture]
    return {name: names.count(name) for name in sorted({*names})}
