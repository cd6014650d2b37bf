"""The test examples that were lost, as they are shown."""

from typing import Literal

from pydantic import BaseModel

from pipeline.records.fields import Inside


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
