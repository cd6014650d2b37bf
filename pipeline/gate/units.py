"""Figures of a budget in words: `40 kB`, `5 ms`, `98 %`."""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer
from pydantic import WithJsonSchema as Schema
from pydantic_core import PydanticCustomError

from pipeline.base.data.sizes import SCHEMA, in_bytes

DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s)")
PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")
MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def milliseconds(text: str) -> float | None:
    """`5 ms` -> 5.0, `1.5 s` -> 1500.0; None for what is no time above 0."""
    whole = DURATION.fullmatch(text.strip())
    return float(whole[1]) * MILLISECONDS[whole[2]] or None if whole else None


def _time(value: Any) -> Any:
    if isinstance(value, str) and milliseconds(value):
        return value.strip()
    raise PydanticCustomError("duration", "a time above 0, such as 300 ms or 1.5 s")


def _ratio_or_time(value: Any) -> Any:
    is_ratio = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    if is_ratio or (isinstance(value, str) and milliseconds(value)):
        return value
    problem = "a number above 0, which is a ratio to the baseline's, or a time, such as 5 ms"
    raise PydanticCustomError("ratio_or_duration", problem)


def _share(value: Any) -> Any:
    """`98 %` as 0.98; what is no such text is left as it is."""
    whole = PERCENT.fullmatch(value) if isinstance(value, str) else None
    return float(Decimal(whole[1]) / 100) if whole else value


def bare(key: Literal["min", "max"], schema: Any) -> BeforeValidator:
    """Lets a figure stand for `{key: figure}`, where a limit has one meaning; `schema` is what else it may be."""

    def in_mapping(value: Any) -> Any:
        is_figure = isinstance(value, str | int | float) and not isinstance(value, bool)
        return {key: value} if is_figure else value

    return BeforeValidator(in_mapping, json_schema_input_type=schema | float | str)


def _shortest(value: float) -> Any:
    """A whole number as an int, so that it is shown and written without a fraction."""
    return int(value) if float(value).is_integer() else value


PERCENT_TEXT = {"type": "string", "pattern": rf"^{PERCENT.pattern}$"}
DURATION_TEXT = {"type": "string", "pattern": rf"^\s*{DURATION.pattern}\s*$"}
RATIO_OR_DURATION = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, DURATION_TEXT]}
SHORT = AfterValidator(_shortest), PlainSerializer(_shortest, return_type=Any)

Bytes = Annotated[float, BeforeValidator(in_bytes), Field(ge=0), *SHORT, Schema(SCHEMA)]
Count = Annotated[float, Field(gt=0), *SHORT]
FIGURE = Annotated[float, Field(gt=0, le=1)] | Annotated[str, Schema(PERCENT_TEXT)]
Share = Annotated[float, BeforeValidator(_share, json_schema_input_type=FIGURE), Field(gt=0, le=1)]
"""Above 0, at most 1: 0.98, or `98 %`."""
Score = Annotated[
    float,
    BeforeValidator(_share, json_schema_input_type=float | Annotated[str, Schema(PERCENT_TEXT)]),
    Field(allow_inf_nan=False),
]
"""In the unit of the task's score: 0.9, `90 %`, or -0.3 where it is an error with its sign turned."""
Time = Annotated[str, BeforeValidator(_time), Schema(DURATION_TEXT)]
RatioOrTime = Annotated[float | str, BeforeValidator(_ratio_or_time), Schema(RATIO_OR_DURATION)]
