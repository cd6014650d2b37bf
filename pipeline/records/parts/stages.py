"""What a stage did, and the models that it made to compare its own with."""

from pydantic import BaseModel, JsonValue

from pipeline.base.estimate import Estimate
from pipeline.records.fields import Inside
from pipeline.records.parts.kernels import Kernels
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.targets import TargetRecord


class Comparison(BaseModel):
    """A model that a stage made to compare its own with; the paths are relative to the run folder.

    `control` is the same student trained on labels alone, `student_1`, `control_1` and so on are of further seeds.
    `key` is that of its measurement in the store, digests are as those of a `ModelRecord`.
    """

    score: float
    folder: Inside
    file: Inside
    predictions: Inside
    digest: str
    digests: dict[Inside, str] = {}
    key: str


class Spread(BaseModel):
    """Scores of trainings that differ in their seed alone; the deviation is a sample's, null for one training."""

    mean: float
    deviation: float | None = None
    count: int = 1


class Gain(Estimate):
    """What distillation brought: mean score of the student minus that of the control, paired by test example.

    With several seeds the value is the mean of `by_seed`, and the interval has the doubt of examples and of seeds.
    `control_drop` is the baseline's score minus the control's; `control_matches` says whether that is surely under a
    point, null for scores that are not from 0 to 1. `metrics` has the gain of each metric over the whole test split.
    """

    by_seed: list[Estimate]
    deviation: float | None = None
    student: Spread
    control: Spread
    control_drop: Estimate | None = None
    control_matches: bool | None = None
    metrics: dict[str, Estimate] = {}


class StageRecord(ModelRecord):
    """What one stage did; `seeds` has the scores of its trainings with several seeds.

    `target` is what its file answers on the CPUs of `target:`, where that has integers.
    `kernels` is how its file runs beside the one that came in, null where both have the same operators and shapes.
    """

    position: int
    name: str
    settings: dict[str, JsonValue]
    changed: bool = True
    latency: list[dict[str, JsonValue]] = []
    comparisons: dict[str, Comparison] = {}
    seeds: Spread | None = None
    gain: Gain | None = None
    target: TargetRecord | None = None
    kernels: Kernels | None = None
