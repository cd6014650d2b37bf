"""Where something is in nested data, as a path of keys and places."""

from collections.abc import Mapping
from typing import Any

Keys = tuple[str | int, ...]


def keys_in(path: Keys, data: Any) -> Keys:
    """The path without the names that union members and tagged types put into it."""
    real: list[str | int] = []
    for key in path:
        there = key in data if isinstance(data, Mapping) else isinstance(data, list) and key in range(len(data))
        if there or (isinstance(data, Mapping) and key == path[-1]):  # a key that is missing is not there
            real.append(key)
            data = data[key] if there else None
    return tuple(real)
