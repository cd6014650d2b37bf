"""What differs between two keys, in words."""

import json
import re

from pydantic import JsonValue

Parts = dict[str, JsonValue]


def changed(old: Parts, new: Parts, prefix: str = "") -> list[str]:
    """The parts that differ, as lines: "settings.epochs: 3 -> 5", "code.models.py: changed"."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            lines += changed(a, b, f"{prefix}{name}.")
        elif _is_digest(a) and _is_digest(b):
            lines.append(f"{prefix}{name}: changed")
        else:
            lines.append(f"{prefix}{name}: {_short(a)} -> {_short(b)}")
    return lines


def _short(value: JsonValue) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_digest(value: JsonValue) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32,64}", value) is not None
