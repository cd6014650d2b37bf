"""What is measured of a model, and where it lies."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from pipeline.base.estimate import Estimate
from pipeline.records.fields import Inside, Time


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
