"""Limits on what benchmark stages measure: on all their rows, or on those of one runtime, threads and batch."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from annotated_types import MinLen
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    WrapSerializer,
    model_validator,
)

from pipeline.base.data.strict import Strict
from pipeline.gate.units import SHORT, Bytes, RatioOrTime, Time, milliseconds
from pipeline.records.figures import runtime_of

PERCENTILES = {50.0: "p50_ms", 90.0: "p90_ms", 99.0: "p99_ms", 99.9: "p999_ms"}
LEAST_MEMORY = 1_000_000  # below it is a number of MB, or a ratio, that was meant to be bytes


def _known(percentile: float) -> float:
    if percentile not in PERCENTILES:
        raise ValueError(f"one of {', '.join(f'{known:g}' for known in PERCENTILES)}")
    return percentile


def _of_a_process(size: float) -> float:
    if size < LEAST_MEMORY:
        raise ValueError("a size of 1 MB or more, such as 60 MB: every process holds that")
    return size


Percentile = Annotated[float, AfterValidator(_known), *SHORT, WithJsonSchema({"enum": [50, 90, 99, 99.9]})]


class RowLimit(Strict):
    """An upper limit on rows of benchmark stages: all, or those of the runtime, threads and batch that it names."""

    runtime: str | None = Field(
        default=None,
        description="as `shrink runtimes` lists it, or with its settings: openvino native; each if not given",
    )
    threads: int | None = Field(default=None, ge=1, description="of one inference; each that is measured if not given")
    batch: int | None = Field(default=None, ge=1, description="of one inference; each that is measured if not given")

    def is_of(self, row: Mapping[str, Any]) -> bool:
        """Whether it limits a row."""
        names = (str(row.get("runtime")), runtime_of(row))
        counts = ("threads", "batch")
        if self.runtime is not None and self.runtime not in names:
            return False
        return all(getattr(self, name) in (None, row.get(name)) for name in counts)

    @property
    def words(self) -> list[str]:
        """What tells it from others of its kind: ncnn, threads1."""
        counts = [f"{name}{value}" for name in ("threads", "batch") if (value := getattr(self, name)) is not None]
        return [*([self.runtime.replace(" ", ".")] if self.runtime else []), *counts]

    @property
    def place(self) -> str:
        """Which rows it is on, in a message: ncnn, threads 1."""
        counts = [f"{name} {value}" for name in ("threads", "batch") if (value := getattr(self, name)) is not None]
        return ", ".join([*([self.runtime] if self.runtime else []), *counts])


class MostLatency(RowLimit):
    """An upper limit of a latency: of its ratio to the baseline's, or in milliseconds."""

    max: RatioOrTime = Field(
        description="a ratio to the baseline's in the same run, such as 0.5, or a time, such as 5 ms"
    )
    percentile: Percentile | None = Field(
        default=None, description="of a limit that is a time; 50, the median, unless given"
    )

    @model_validator(mode="after")
    def _of_a_time(self) -> Self:
        if self.percentile is not None and self.ms is None:
            raise ValueError("a time, such as 5 ms, as `max` where there is a `percentile`: a ratio is of medians")
        return self

    @property
    def ms(self) -> float | None:
        """In milliseconds, None where it is a ratio."""
        return milliseconds(self.max) if isinstance(self.max, str) else None

    @property
    def key(self) -> str:
        """The figure of a row that a limit in milliseconds is on."""
        return PERCENTILES[float(self.percentile or 50)]

    @property
    def words(self) -> list[str]:
        """Also which percentile: ncnn, p90."""
        return [*super().words, *([] if self.ms is None else [f"p{self.percentile or 50:g}"])]


class MostMemory(RowLimit):
    """An upper limit of what a process that runs the model holds at most, such as `60 MB`."""

    max: Annotated[Bytes, AfterValidator(_of_a_process)]


class MostStartup(RowLimit):
    """An upper limit of the time from the start of a process to its first answer."""

    max: Time = Field(description="a time, such as 300 ms")

    @property
    def ms(self) -> float:
        """In milliseconds."""
        return milliseconds(self.max) or 0.0


def _listed(value: Any) -> Any:
    """One limit as a list of one; a time or a size may stand for it."""
    if isinstance(value, str):
        return [{"max": value}]
    if isinstance(value, int | float):
        raise ValueError(f"a mapping, such as {{max: {value}}}, or a list of them")
    return [value] if isinstance(value, Mapping | RowLimit) else value


def _distinct(limits: tuple[RowLimit, ...]) -> tuple[RowLimit, ...]:
    words = [limit.words for limit in limits]
    if twice := [own for own in words if words.count(own) > 1]:
        raise ValueError(f"limits of different rows or figures; two are of {', '.join(twice[0]) or 'all rows'}")
    return limits


def _unlisted(limits: Any, handler: SerializerFunctionWrapHandler) -> Any:
    """As it was written: one limit without a list."""
    values = handler(limits)
    return values[0] if isinstance(values, tuple | list) and len(values) == 1 else values


KEPT = AfterValidator(_distinct), MinLen(1), WrapSerializer(_unlisted)

Latencies = Annotated[
    tuple[MostLatency, ...],
    BeforeValidator(_listed, json_schema_input_type=MostLatency | list[MostLatency] | str),
    *KEPT,
]
Memories = Annotated[
    tuple[MostMemory, ...], BeforeValidator(_listed, json_schema_input_type=MostMemory | list[MostMemory] | str), *KEPT
]
Startups = Annotated[
    tuple[MostStartup, ...],
    BeforeValidator(_listed, json_schema_input_type=MostStartup | list[MostStartup] | str),
    *KEPT,
]
