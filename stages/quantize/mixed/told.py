"""A mixture that was tried, and what is said of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import JsonValue

from pipeline.base.estimate import Estimate
from pipeline.base.formatting import bytes_text
from pipeline.context import Context
from pipeline.measure.size import size_bytes
from pipeline.model import OnnxModel, TorchModel
from stages.quantize.graphs.reasons import HALF
from stages.quantize.mixed.front import Mixture
from stages.quantize.mixed.keep import Keep, Width
from stages.quantize.mixed.measuring import Row
from stages.quantize.rounding.settings import label

Form = TypeVar("Form", OnnxModel, TorchModel)


@dataclass(frozen=True)
class Tried(Generic[Form]):
    """A mixture that was quantized and scored, and what the stage said of it.

    Args:
        mixture: a width for each unit.
        model: the file, or the trained network.
        estimate: what became of the score on validation.
        reports, warnings: of the stage.
        quantized: the names of the nodes that were.
    """

    mixture: Mixture
    model: Form
    estimate: Estimate
    reports: dict[str, JsonValue] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    quantized: set[str] = field(default_factory=set)

    @property
    def halves(self) -> set[str]:
        """The names of the nodes whose weights are stored in fp16."""
        quantization: Any = self.reports.get("quantization", {})
        return {*quantization.get(HALF, [])}


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


def is_quantized(mixture: Mixture, plain: Collection[Width]) -> bool:
    """Whether a layer of it is, where those of some widths are not."""
    return any(choice.width not in plain for choice in mixture)


def became(rows: Sequence[Row], tried: Tried[OnnxModel]) -> dict[str, JsonValue]:
    """The width of each unit, as it came out: a layer that cannot have the integers that it was to have is in fp32."""
    widths: dict[str, JsonValue] = {}
    for row, choice in zip(rows, tried.mixture, strict=True):
        if tried.quantized.issuperset(row.nodes):
            widths[row.layer] = choice.width if isinstance(choice.width, int) else label(choice.width)
        else:
            widths[row.layer] = "fp16" if tried.halves.issuperset(row.nodes) else "fp32"
    return widths


def entry(tried: Tried[Form]) -> dict[str, JsonValue]:
    """A mixture in the record: its bytes, how many layers have which width, and what became of the score."""
    of_file = {"size_bytes": size_bytes(tried.model)} if isinstance(tried.model, OnnxModel) else {}
    return {**of_mixture(tried.mixture), **of_file, **tried.estimate.model_dump()}


def of_mixture(mixture: Mixture) -> dict[str, JsonValue]:
    """The bytes of a mixture's weights, and how many layers have which width."""
    return {"weights_bytes": round(_size(mixture)), "counts": {**_counts(mixture)}}


def _size(mixture: Mixture) -> float:
    return sum(choice.size for choice in mixture)


def _counts(mixture: Mixture) -> dict[str, int]:
    names = [f"{choice.width} bits" if isinstance(choice.width, int) else label(choice.width) for choice in mixture]
    return {name: names.count(name) for name in sorted({*names})}
