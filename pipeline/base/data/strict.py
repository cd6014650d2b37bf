"""What settings are made of: frozen, without unknown keys, and what is no number is not taken for one."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidatorFunctionWrapHandler, field_validator

NUMBER = re.compile(r"\s*[-+]?[\d_.]+(e[-+]?\d+)?\s*", re.IGNORECASE)


class Strict(BaseModel):
    """Frozen; a key that is not a field is an error, and so is `true` or "4" for a number, or 1 for `true`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _of_its_kind(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        """Refuse what pydantic would turn into another kind; its strict mode refuses lists for tuples too."""
        result = handler(value)
        refuse_turned(value, result)
        return result


def refuse_turned(value: Any, result: Any) -> None:
    """Raise ValueError where a number or a truth was made of something else, also within lists and mappings.

    A size such as "40 kB" is a number in words, and stays one.
    """
    if isinstance(value, Mapping) and isinstance(result, Mapping):
        for key in result.keys() & value.keys():
            refuse_turned(value[key], result[key])
    elif isinstance(value, list | tuple) and isinstance(result, list | tuple):
        for pair in zip(value, result, strict=False):
            refuse_turned(*pair)
    elif type(result) is bool and not isinstance(value, bool):
        raise ValueError("true or false")
    elif type(result) in (int, float) and isinstance(value, bool):
        raise ValueError("a number")
    elif type(result) in (int, float) and isinstance(value, str) and NUMBER.fullmatch(value):
        raise ValueError("a number, without quotes")
