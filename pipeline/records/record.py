"""The record of a run: what everything else reads. Fields are added to it, none is taken away."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from pipeline.base.estimate import Estimate
from pipeline.base.files import read_json, write_whole
from pipeline.records.fields import Config, Environment, Inside, Name, Splits, Time

SCHEMA_VERSION = 1
STOPS = (130, 143)  # exit codes of what a signal ended

Verdict = Literal["pass", "fail", "inconclusive"]
GateVerdict = Literal["pass", "fail", "inconclusive", "skipped"]


class Flips(BaseModel):
    """Examples that the baseline had right and the model has wrong (lost), and the other way round (gained)."""

    lost: int
    gained: int


class ClassMeasure(BaseModel):
    """What became of one class of the test split; `label` is its name or number, `support` its number of examples.

    Retention is null where the baseline has no example of the class right.
    """

    label: str
    support: int
    score: float
    retention: Estimate | None = None
    flips: Flips | None = None


class Measure(BaseModel):
    """What is measured of a model in the form in which it would be deployed.

    `retention` is null where the baseline's score is not above zero, with the reason; `drop` always stands beside it.
    `macs` is null, with the reason, where an operator is not known.
    `retention_before` is against the model of the stage before. KL divergence is in nats, KL(baseline || model).
    The validation figures are what a choice among models is made on; those without the word are of the test split.
    `metrics_drop` and `metrics_retention` compare each of `metrics` with the baseline's on the same resamples: its
    minus ours, and ours over its, the latter where the baseline's is above zero in all of them. `tokenizer_bytes` is
    the tokenizer's file, which is deployed beside the model and not counted in its size; null where there is none.
    `batch` examples were predicted at a time.
    """

    model_config = ConfigDict(extra="forbid")
    size_bytes: int
    payload_bytes: int
    tokenizer_bytes: int | None = None
    params: int
    macs: int | None
    macs_reason: str | None = None
    score: float
    metrics: dict[str, Estimate] = {}
    metrics_drop: dict[str, Estimate] = {}
    metrics_retention: dict[str, Estimate] = {}
    retention: Estimate | None = None
    retention_reason: str | None = None
    retention_before: Estimate | None = None
    drop: Estimate | None = None
    compression_ratio: float = 1.0
    flips: Flips | None = None
    mcnemar_p: float | None = None
    agreement: float | None = None
    kl_mean: float | None = None
    kl_p99: float | None = None
    test_samples: int
    batch: int | None = None
    validation_score: float | None = None
    validation_retention: Estimate | None = None
    classes: list[ClassMeasure] = []


class ModelRecord(Measure):
    """A measured model and where it lies, relative to the run folder: `folder` to load it, `file` to deploy it.

    `key` is that of its stage's result in the store, `uses` has all keys that it rests on. `digest` is of all files of
    `folder` together; `digests` has the SHA-256 of each file to deploy and of the predictions, by its path.
    """

    seconds: float
    finished: Time
    cached: bool = False
    key: str | None = None
    uses: list[str] = []
    form: Literal["torch", "onnx", "seq2seq"]
    folder: Inside
    file: Inside
    digest: str
    predictions: Inside
    digests: dict[Inside, str] = {}
    reports: dict[str, JsonValue] = {}


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
    """What one stage did; `seeds` has the scores of its trainings with several seeds."""

    position: int
    name: str
    settings: dict[str, JsonValue]
    changed: bool = True
    latency: list[dict[str, JsonValue]] = []
    comparisons: dict[str, Comparison] = {}
    seeds: Spread | None = None
    gain: Gain | None = None


class GateRecord(BaseModel):
    """One limit of the budget, what was found, and the verdict.

    `limit` is absolute; `of` says what it was told as a share of. `counts_as` is what the verdict means for the run,
    where the budget says so for an inconclusive or a skipped gate. `fix` says what to change next, `samples_needed` is
    the number of test examples that would decide.
    """

    name: str
    limit: float
    value: float | None
    low: float | None = None
    high: float | None = None
    verdict: GateVerdict
    message: str
    of: Literal["baseline", "expected"] | None = None
    counts_as: Literal["pass", "warn", "fail", "inconclusive"] | None = None
    fix: str = ""
    samples_needed: int | None = None


class Port(BaseModel):
    """An input or output of the deployed model: its shape without the batch, and what was seen on training data."""

    name: str
    shape: list[int]
    dtype: str
    low: float | None = None
    high: float | None = None
    mean: float | None = None


class Interface(BaseModel):
    """What someone who deploys the model has to know; `labels` are the names of the classes, in order.

    `scored` is the output that the task scores, where it says which.
    """

    inputs: list[Port]
    outputs: list[Port]
    labels: list[str] = []
    preprocessing: str = ""
    scored: str | None = None


class Confusion(BaseModel):
    """How many examples of a class the baseline had right and the last model takes for another class."""

    label: str
    predicted: str
    count: int


class Example(BaseModel):
    """A test example that the baseline had right and the last model has wrong.

    `kind` says how it is shown: `file`, a PNG in the run folder, for an image, and its SHA-256 as `digest`; `text`; or
    `numbers`, a curve.
    """

    index: int
    label: str | None = None
    baseline: str | None = None
    predicted: str | None = None
    baseline_score: float
    score: float
    kind: Literal["image", "text", "numbers"]
    file: Inside | None = None
    digest: str | None = None
    text: str | None = None
    numbers: list[float] = []


class Flipped(BaseModel):
    """What the last model lost against the baseline: which classes for which, and the worst examples first."""

    confusions: list[Confusion] = []
    examples: list[Example] = []


class Origin(BaseModel):
    """What a run was asked for: the pipeline file as it was named, what was overridden, and the strategy of several.

    `folder` is the file's own, absolute.
    """

    file: str
    folder: str = ""
    overrides: list[str] = []
    strategy: str | None = None


class Failure(BaseModel):
    """Why a run ended early."""

    where: str
    message: str
    exit_code: int

    @property
    def is_stop(self) -> bool:
        """Whether it was asked to stop, so that it can be resumed."""
        return self.exit_code in STOPS


class Record(BaseModel):
    """A whole run, as far as it came. Notes say what was found and ask for nothing; warnings do.

    `comparison` is the folder, beside the run's own, of the comparison that it is part of. `test_uses` counts the
    models that were measured on this test split in this folder of runs, this run's among them. `judged_by` is the
    budget of the gates where `shrink gate --budget` gave another than the config's.
    """

    schema_version: int = SCHEMA_VERSION
    run: Name
    folder: str
    started: Time
    config: Config
    seed: int
    data: Splits
    environment: Environment
    warnings: list[str] = []
    notes: list[str] = []
    baseline: ModelRecord | None = None
    stages: list[StageRecord] = []
    gates: list[GateRecord] = []
    verdict: Verdict | None = None
    judged_by: dict[str, JsonValue] | None = None
    register_as: str | None = None
    failure: Failure | None = None
    origin: Origin | None = None
    comparison: Name | None = None
    interface: Interface | None = None
    flipped: Flipped | None = None
    test_uses: int | None = None

    @property
    def final(self) -> ModelRecord | None:
        """The last model that was measured."""
        return self.stages[-1] if self.stages else self.baseline

    @property
    def models(self) -> list[tuple[str, ModelRecord]]:
        """What was measured, by name and in the order of the chain: the baseline, and the model after each stage."""
        baseline = [("baseline", self.baseline)] if self.baseline else []
        return [*baseline, *((stage.name, stage) for stage in self.stages)]

    @property
    def split_digests(self) -> dict[str, str]:
        """The digest of each split that it tells of."""
        splits: dict[str, Any] = self.data
        return {name: str(split["digest"]) for name, split in splits.items() if "digest" in split}

    @property
    def latency_stage(self) -> StageRecord | None:
        """The last stage that measured latencies."""
        return next((stage for stage in reversed(self.stages) if stage.latency), None)

    def save(self) -> None:
        """Write record.json whole or not at all."""
        write_whole(Path(self.folder) / "record.json", self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """What `save` wrote, found again where the run folder is now. Raises ValueError, and OSError."""
        record = cls.model_validate(read_json(folder / "record.json"))
        return record.model_copy(update={"folder": str(folder)})
