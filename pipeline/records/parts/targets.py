"""What a file with integers answers on another CPU, as a record has it."""

from pydantic import BaseModel

from pipeline.base.estimate import Estimate
from pipeline.base.hardware import Isa
from pipeline.records.parts.models import Flips


class SaturatingLayer(BaseModel):
    """A layer whose sums saturate there, counted on validation examples.

    `place` is where it stands among all products of integers in the graph, from 1, and `shape` is that of its weight,
    for files of ours have short names. `saturated` is the share of its pairs of products that did, `error` what that
    took off its sums, as a share of these (root of mean squares). Where the layer alone were exact, `changed` of the
    decisions on these examples would be others, and their score would rise by `gain`; null where that was not tried,
    or predictions are no decisions.
    """

    node: str
    operator: str
    place: int
    shape: list[int]
    saturated: float
    error: float
    changed: float | None = None
    gain: float | None = None


class TargetRecord(BaseModel):
    """What a file answers on CPUs of a kind, emulated, in pairs with what it answers here.

    `reason` says why it is not known; all else is null then. Scores, retention and drop are as those of a `Measure`,
    `drop` below the score that was measured here. `flips` are against what was measured here too, `changed` is the
    share of test decisions that are others, `difference` the largest between predictions that are no decisions, as a
    share of their range. `keeps_budget` says whether the budget's limits on the score are kept there,
    `budget_here_alone` that they are kept here and not there. The layers are those whose sums saturated on
    `layer_examples` examples of validation, the worst first. `reduce_range_helps` says whether the stage, or one
    before it, has that setting, does not use it, and loses decisions.
    """

    isa: Isa
    reason: str = ""
    score: float | None = None
    validation_score: float | None = None
    retention: Estimate | None = None
    validation_retention: Estimate | None = None
    drop: Estimate | None = None
    flips: Flips | None = None
    changed: float | None = None
    difference: float | None = None
    keeps_budget: bool | None = None
    budget_here_alone: bool = False
    layers: list[SaturatingLayer] = []
    layer_examples: int | None = None
    reduce_range_helps: bool = False
