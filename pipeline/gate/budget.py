"""The budget of a pipeline file: limits that the last model must keep to."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.base.data.strict import Strict
from pipeline.gate.limits import Latencies, Memories, RowLimit, Startups
from pipeline.gate.units import Bytes, Count, Score, Share, bare

Choice = Literal["pass", "warn", "fail", "inconclusive"]

LARGEST_FACTOR = 100  # of `of:`; beyond it is a count that was meant to be absolute


class Least(Strict):
    """A lower limit of a share."""

    min: Share


class LeastScore(Strict):
    """A lower limit of the score itself."""

    min: Score


class LeastKept(Least):
    """A lower limit of retention, of the baseline or of the committed expected model."""

    of: Literal["baseline", "expected"] = "baseline"


class MostShare(Strict):
    """An upper limit of a share or of a difference of shares."""

    max: float = Field(ge=0, le=1)


class MostRatio(Strict):
    """An upper limit of a ratio or of a relative difference."""

    max: float = Field(gt=0)


class _Most(Strict):
    """An upper limit of a count; with `of` a factor, such as 0.5."""

    max: float
    of: Literal["baseline", "expected"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.of is None and not isinstance(self.max, int):
            raise ValueError("a whole number; with `of: baseline` a factor")
        if self.of and not 0 < self.max <= LARGEST_FACTOR:
            raise ValueError(f"with `of: {self.of}` a factor above 0, such as 0.25")
        return self


class MostBytes(_Most):
    """An upper limit such as `40 kB` (1000 bytes each) or `1 MiB`; with `of` a factor, such as 0.25."""

    max: Bytes


class Most(_Most):
    """An upper limit of a count; with `of` a factor, such as 0.5."""

    max: Count


class Budget(Strict):
    """What the last model must keep to, for `shrink run` to succeed."""

    retention: Annotated[LeastKept | None, bare("min", LeastKept)] = Field(
        default=None, description="of the baseline's score; the interval decides"
    )
    score: Annotated[LeastScore | None, bare("min", LeastScore)] = Field(
        default=None, description="the score itself on the test split, in its unit; the interval decides"
    )
    drop: Annotated[MostShare | None, bare("max", MostShare)] = Field(
        default=None, description="of the score below the baseline's; the interval decides"
    )
    flips: Annotated[MostShare | None, bare("max", MostShare)] = Field(
        default=None, description="share of the test examples that the model lost"
    )
    worst_class: Annotated[Least | None, bare("min", Least)] = Field(
        default=None, description="retention of every class"
    )
    parity: Annotated[MostRatio | None, bare("max", MostRatio)] = Field(
        default=None, description="difference of the exported file from the torch model"
    )
    size: Annotated[MostBytes | None, bare("max", MostBytes)] = Field(
        default=None, description="bytes of the file to deploy"
    )
    params: Annotated[Most | None, bare("max", Most)] = None
    macs: Annotated[Most | None, bare("max", Most)] = None
    latency: Latencies | None = Field(
        default=None, description="a ratio to the baseline's in the same run, or a time; a list has several limits"
    )
    memory: Memories | None = Field(default=None, description="bytes that a process with the model holds at most")
    startup: Startups | None = Field(default=None, description="from the start of a process to its first answer")
    expected: Path = Field(default=Path("expected.json"), description="what `of: expected` is told of; `shrink expect`")
    on_inconclusive: Choice = Field(default="inconclusive", description="what too few examples mean for the run")
    on_skipped: Choice = Field(default="inconclusive", description="what a limit means that could not be looked at")

    @property
    def on_rows(self) -> dict[str, tuple[RowLimit, ...]]:
        """The limits on what benchmark stages measure, by their key; those that are given."""
        kinds = {"latency": self.latency, "memory": self.memory, "startup": self.startup}
        return {key: limits for key, limits in kinds.items() if limits}
