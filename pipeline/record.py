"""The record of a run: what everything else reads. Fields are added to it, none is taken away."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from pipeline.statistics import Estimate

SCHEMA_VERSION = 1

Verdict = Literal["pass", "fail", "inconclusive"]


class Flips(BaseModel):
    """Examples that the baseline had right and the model has wrong (lost), and the other way round (gained)."""

    lost: int
    gained: int


class Measure(BaseModel):
    """What is measured of a model in the form in which it would be deployed.

    `retention` is null where the baseline's score is not above zero, with the reason; `drop` always stands beside it.
    `retention_before` is against the model of the stage before. KL divergence is in nats, KL(baseline || model).
    """

    model_config = ConfigDict(extra="forbid")
    size_bytes: int
    payload_bytes: int
    params: int
    macs: int
    score: float
    metrics: dict[str, Estimate] = {}
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


class ModelRecord(Measure):
    """A measured model and where it lies, relative to the run folder: `folder` to load it, `file` to deploy it.

    `key` is that of its stage's result in the store, `uses` has all keys that it rests on.
    """

    seconds: float
    finished: str
    cached: bool = False
    key: str | None = None
    uses: list[str] = []
    form: Literal["torch", "onnx"]
    folder: str
    file: str
    digest: str
    predictions: str
    reports: dict[str, JsonValue] = {}


class Comparison(BaseModel):
    """A model that a stage made to compare its own with; the paths are relative to the run folder.

    `control` is the same student trained on labels alone, `student_1`, `control_1` and so on are of further seeds.
    `key` is that of its measurement in the store.
    """

    score: float
    folder: str
    file: str
    predictions: str
    digest: str
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
    point, null for scores that are not from 0 to 1.
    """

    by_seed: list[Estimate]
    deviation: float | None = None
    student: Spread
    control: Spread
    control_drop: Estimate | None = None
    control_matches: bool | None = None


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
    """One limit of the budget, what was found, and the verdict."""

    name: str
    limit: float
    value: float | None
    low: float | None = None
    high: float | None = None
    verdict: Verdict
    message: str


class Failure(BaseModel):
    """Why a run ended early."""

    where: str
    message: str
    exit_code: int


class Record(BaseModel):
    """A whole run, as far as it came. Notes say what was found and ask for nothing; warnings do."""

    schema_version: int = SCHEMA_VERSION
    run: str
    folder: str
    started: str
    config: dict[str, JsonValue]
    seed: int
    data: dict[str, JsonValue]
    environment: dict[str, JsonValue]
    warnings: list[str] = []
    notes: list[str] = []
    baseline: ModelRecord | None = None
    stages: list[StageRecord] = []
    gates: list[GateRecord] = []
    verdict: Verdict | None = None
    register_as: str | None = None
    failure: Failure | None = None

    @property
    def final(self) -> ModelRecord | None:
        """The last model that was measured."""
        return self.stages[-1] if self.stages else self.baseline

    def save(self) -> None:
        """Write record.json whole or not at all."""
        path = Path(self.folder) / "record.json"
        temporary = path.with_suffix(".tmp")
        with temporary.open("w") as file:
            file.write(self.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """What `save` wrote, found again where the run folder is now."""
        record = cls.model_validate_json((folder / "record.json").read_text())
        return record.model_copy(update={"folder": str(folder)})


def schema() -> dict[str, Any]:
    """The JSON Schema of record.json."""
    return Record.model_json_schema()
