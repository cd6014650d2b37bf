"""The budget of a pipeline file: limits that the last model must keep to."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pipeline.base.data.strict import Strict

Choice = Literal["pass", "warn", "fail", "inconclusive"]

LARGEST_FACTOR = 100  # of `of:`; beyond it is a count that was meant to be absolute


class Least(Strict):
    """A lower limit of a share."""

    min: float = Field(gt=0, le=1)


class LeastKept(Least):
    """A lower limit of retention, of the baseline or of the committed expected model."""

    of: Literal["baseline", "expected"] = "baseline"


class MostShare(Strict):
    """An upper limit of a share or of a difference of shares."""

    max: float = Field(ge=0, le=1)


class MostRatio(Strict):
    """An upper limit of a ratio or of a relative difference."""

    max: float = Field(gt=0)


def _bytes(value: Any) -> Any:
    """`40 kB` in bytes; what is no text is left as it is."""
    if not isinstance(value, str):
        return value
    try:
        return int(TypeAdapter(ByteSize).validate_python(value))
    except ValidationError:
        raise PydanticCustomError("byte_size", "a size, such as 40 kB or 1 MiB") from None


def _shortest(value: float) -> Any:
    """A whole number as an int, so that it is shown and written without a fraction."""
    return int(value) if float(value).is_integer() else value


SIZE = {"anyOf": [{"type": "string"}, {"type": "number", "minimum": 0}]}

SHORT = AfterValidator(_shortest), PlainSerializer(_shortest, return_type=Any)

Bytes = Annotated[float, BeforeValidator(_bytes), Field(ge=0), *SHORT, WithJsonSchema(SIZE)]
Count = Annotated[float, Field(gt=0), *SHORT]


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

    retention: LeastKept | None = Field(default=None, description="of the baseline's score; the interval decides")
    drop: MostShare | None = Field(default=None, description="of the score below the baseline's; the interval decides")
    flips: MostShare | None = Field(default=None, description="share of the test examples that the model lost")
    worst_class: Least | None = Field(default=None, description="retention of every class")
    parity: MostRatio | None = Field(default=None, description="difference of the exported file from the torch model")
    size: MostBytes | None = Field(default=None, description="bytes of the file to deploy")
    params: Most | None = None
    macs: Most | None = None
    latency: MostRatio | None = Field(default=None, description="ratio to the baseline's, measured in the same run")
    expected: Path = Field(default=Path("expected.json"), description="what `of: expected` is told of; `shrink expect`")
    on_inconclusive: Choice = Field(default="inconclusive", description="what too few examples mean for the run")
    on_skipped: Choice = Field(default="inconclusive", description="what a limit means that could not be looked at")
