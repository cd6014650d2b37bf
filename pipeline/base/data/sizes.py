"""Sizes in settings, in words: `40 kB`."""

from typing import Any

from pydantic import ByteSize, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

SCHEMA = {"anyOf": [{"type": "string"}, {"type": "number", "minimum": 0}]}


def in_bytes(value: Any) -> Any:
    """`40 kB` in bytes; what is no text is left as it is."""
    if not isinstance(value, str):
        return value
    try:
        return int(TypeAdapter(ByteSize).validate_python(value))
    except ValidationError:
        raise PydanticCustomError("byte_size", "a size, such as 40 kB or 1 MiB") from None
