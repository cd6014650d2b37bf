"""What a run says of single layers: how much the answers depend on each, and the widths that were chosen."""

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from pipeline.base.estimate import Estimate
from pipeline.base.formatting import bytes_text, interval_text
from pipeline.records.record import Record

LOG = logging.getLogger("shrinkline")
SENSITIVITY, KEEP, BISECTION = "sensitivity", "keep", "bisection"
"""The names of the reports."""
MOST_LAYERS = 20
"""Of which lines of text are shown."""
Report = TypeVar("Report", bound=BaseModel)


class Layer(BaseModel):
    """A layer, and how far the answers are from what they were where it alone is changed, by the change."""

    layer: str
    operator: str
    elements: int = Field(ge=0)
    effects: dict[str, float]

    @property
    def worst(self) -> float:
        """The largest of its effects."""
        return max(self.effects.values(), default=0.0)


class Sensitivity(BaseModel):
    """What a stage that measures layers reports."""

    layers: list[Layer] = Field(min_length=1)

    @property
    def changes(self) -> list[str]:
        """What was tried, in order; not of every layer, for a codebook may be larger than one."""
        return [*dict.fromkeys(change for layer in self.layers for change in layer.effects)]

    @property
    def worst_first(self) -> list[Layer]:
        """The layers on which the answers depend most, first."""
        return sorted(self.layers, key=lambda layer: -layer.worst)


class Kept(Estimate):
    """The mixture of widths that keeps a limit, and what became of the score on validation."""

    limit: str
    examples: int
    weights_bytes: int
    counts: dict[str, int]
    tried: list[Any]


class Culprit(BaseModel):
    """A layer, and the share of what is lost that it accounts for."""

    layer: str
    nodes: list[str]
    share: float


class Bisection(BaseModel):
    """What a stage that bisects reports."""

    divergence: float
    layers: list[Culprit]
    of: int
    remedy: str = ""


def bisection_text(record: Record) -> str:
    """What is lost comes from ...: the layers with their shares; empty where nothing was bisected."""
    bisection = _last(record, BISECTION, Bisection)
    if bisection is None:
        return ""
    if bisection.divergence == 0:
        return f"Nothing was lost: with all of {bisection.of} layers quantized the answers are the same"
    if not bisection.layers:
        text = f"Of {bisection.of} layers none accounts for much of what is lost: it comes from many of them"
        return "; ".join(filter(None, [text, bisection.remedy]))
    names = ", ".join(f"{culprit.layer} ({culprit.share:.0%})" for culprit in bisection.layers)
    nodes = ", ".join(node for culprit in bisection.layers for node in culprit.nodes)
    remedy = bisection.remedy or f"`exclude: [{nodes}]` keeps it"
    return f"What is lost comes, of {bisection.of} layers, from {names}; {remedy}"


def sensitivity(record: Record) -> Sensitivity | None:
    """The report of the last stage that measured layers; None where there is none, or none that can be read."""
    return _last(record, SENSITIVITY, Sensitivity)


def sensitivity_cells(layer: Layer, changes: Sequence[str]) -> list[str]:
    """Layer, operator, elements, and the effect of each change."""
    cells = [f"{layer.effects[change]:.2g}" if change in layer.effects else "-" for change in changes]
    return [layer.layer, layer.operator, f"{layer.elements:,}", *cells]


def kept_text(record: Record) -> str:
    """Kept drop 0.003 with ...: the mixture in words; empty where none was chosen."""
    kept = _last(record, KEEP, Kept)
    if kept is None:
        return ""
    counts = ", ".join(f"{count} of {width}" for width, count in kept.counts.items())
    figures = f"{interval_text(kept)} on {kept.examples:,} validation examples"
    size = bytes_text(kept.weights_bytes)
    return f"Kept {kept.limit}, {figures}: layers {counts}, {size} of weights once packed, {len(kept.tried)} tried"


def _last(record: Record, name: str, kind: type[Report]) -> Report | None:
    for stage in reversed(record.stages):
        if name in stage.reports:
            try:
                return kind.model_validate(stage.reports[name])
            except ValidationError as error:
                reason = error.errors()[0]
                where = ".".join(map(str, reason["loc"]))
                LOG.warning("%s: its report `%s` is not shown: %s: %s", stage.name, name, where, reason["msg"])
                return None
    return None
