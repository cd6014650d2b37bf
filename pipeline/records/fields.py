"""Kinds of fields that records share: times, names of folders, and places inside a folder."""

from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, JsonValue


def _is_time(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None or text < "1970-01-02":
        raise ValueError("a time in ISO 8601 with its zone is expected")
    return text


def _is_name(text: str) -> str:
    if not text or text in (".", "..") or {"/", "\\", "\0"} & set(text):
        raise ValueError("the name of a folder is expected, not a path")
    return text


def _is_inside(text: str) -> str:
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts or "\0" in text:
        raise ValueError("a relative path without `..` is expected, which stays in the folder")
    return text


def _mappings_are_there(*names: str) -> AfterValidator:
    """Of JSON by name, those of these names (all without any) are mappings where they are there."""

    def check(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if wrong := [name for name in names or value if not isinstance(value.get(name, {}), dict)]:
            raise ValueError(f"`{wrong[0]}` is no mapping")
        return value

    return AfterValidator(check)


Time = Annotated[str, AfterValidator(_is_time)]
"""ISO 8601 with its zone, of 1970 or later."""
Name = Annotated[str, AfterValidator(_is_name)]
"""Of a folder, beside or below another."""
Inside = Annotated[str, AfterValidator(_is_inside)]
"""A path that stays in the folder that it is relative to, as far as its text tells; of links see `folder`."""
Config = Annotated[dict[str, JsonValue], _mappings_are_there("compare", "budget")]
Splits = Annotated[dict[str, JsonValue], _mappings_are_there()]
Environment = Annotated[dict[str, JsonValue], _mappings_are_there("versions")]
