"""A mixture that was tried, and what is said of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import JsonValue

from pipeline.base.estimate import Estimate
from pipeline.base.formatting import bytes_text
from pipeline.measure.size import size_bytes
from pipeline.model import OnnxModel, TorchModel
from pipeline.stage import Context
from stages.quantize.graphs.reasons import HALF
from stages.quantize.mixed.front import Mixture
from stages.quantize.mixed.keep import FLOATS, Keep
from stages.quantize.mixed.measuring import Row
from stages.quantize.rounding.settings import Codebook, label

Form = TypeVar("Form", OnnxModel, TorchModel)


@dataclass(frozen=True)
class Tried(Generic[Form]):
    """A mixture that was quantized and scored, and what the stage said of it.

    Args:
        mixture: a width for each unit.
        model: the file, or the trained network.
        estimate: what became of the score on validation.
        reports, warnings: of the stage.
    """

    mixture: Mixture
    model: Form
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
    keep: Keep,
    rows: Sequence[Row],
    chosen: Tried[OnnxModel],
    tried: Sequence[Tried[OnnxModel]],
    examples: int,
    ctx: Context,
) -> OnnxModel:
    """The file, once everything is reported that the stage said of it, and what each layer became."""
    widths: dict[str, JsonValue] = {row.layer: _became(row, chosen, i) for i, row in enumerate(rows)}
    tell(keep, chosen, tried, ctx, examples=examples, widths=widths, settings=_settings(rows, chosen))
    return chosen.model


def tell(keep: Keep, chosen: Tried[Form], tried: Sequence[Tried[Form]], ctx: Context, **more: JsonValue) -> None:
    """Report all that the stage said of a mixture, what became of the score, and what was tried."""
    for name, value in chosen.reports.items():
        ctx.report(name, value)
    for text in chosen.warnings:
        ctx.warn(text)
    ctx.report("keep", {"limit": keep.text, **entry(chosen), **more, "tried": [entry(one) for one in tried]})
    ctx.log.info("%s, of %d mixtures tried", figures(keep, chosen), len(tried))


def figures(keep: Keep, tried: Tried[Form]) -> str:
    """What became of the score, and of the weights."""
    counts = ", ".join(f"{count} of {width}" for width, count in _counts(tried.mixture).items())
    what = "retention" if keep.retention is not None else "drop"
    interval = f"{tried.estimate.value:.4f} [{tried.estimate.low:.4f}, {tried.estimate.high:.4f}]"
    return f"{what} {interval}, weights of {bytes_text(round(_size(tried.mixture)))} ({counts})"


def is_quantized(mixture: Mixture) -> bool:
    """Whether a layer of it is."""
    return any(choice.width not in FLOATS for choice in mixture)


def _became(row: Row, tried: Tried[OnnxModel], place: int) -> JsonValue:
    """The width of a unit, as it came out: a layer that cannot have the integers that it was to have stays in fp32."""
    width = tried.mixture[place].width
    if tried.quantized.issuperset(row.nodes):
        return width if isinstance(width, int) else label(width)
    return "fp16" if tried.halves.issuperset(row.nodes) else "fp32"


def _settings(rows: Sequence[Row], tried: Tried[OnnxModel]) -> dict[str, JsonValue]:
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


def entry(tried: Tried[Form]) -> dict[str, JsonValue]:
    """A mixture in the record: its bytes, how many layers have which width, and what became of the score."""
    of_file = {"size_bytes": size_bytes(tried.model)} if isinstance(tried.model, OnnxModel) else {}
    counts: dict[str, JsonValue] = {**_counts(tried.mixture)}
    return {
        "weights_bytes": round(_size(tried.mixture)), **of_file, "counts": counts, **tried.estimate.model_dump()
    }  # fmt: skip


def _size(mixture: Mixture) -> float:
    return sum(choice.size for choice in mixture)


def _counts(mixture: Mixture) -> dict[str, int]:
    names = [f"{choice.width} bits" if isinstance(choice.width, int) else label(choice.width) for choice in mixture]
    return {name: names.count(name) for name in sorted({*names})}
