"""Faults for files: a JSON document with one value changed, a text or bytes with a piece changed, each from a seed."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

OUTSIDE = "../../../outside/secret"
"""From the folder of a run that is tried, a file that no command may read or write."""
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 10**400, 1.5, 1e308, float("nan"), float("inf"), "", "x", "a\0b", "\ud800", "é" * 300,
    "2026-01-01", OUTSIDE, "..", "/", ".", "[bold]", "{}", [], [None], [[]], ["x"] * 3, {}, {"": None}, {"x": {"y": 1}},
)  # fmt: skip
PIECES = (b"\0", b"\xff", b"-1", b"nan", b"9" * 20, b"../", b'"', b"[" * 200, b"&a *a", b"!!int ", b"<<: ", b"\n- ")


def json_with_fault(content: bytes, random: Random) -> bytes:
    """A JSON document of which one value, somewhere, is another, is gone, stands twice, or lies deep in lists."""
    document = json.loads(content)
    above, key = random.choice(list(_places(document)))
    match random.randrange(10):
        case 0:
            del above[key]
        case 1 if isinstance(above, list):
            above.append(above[key])
        case 2:
            above[key] = _nested(above[key], random.choice((1, 3, 500)))
        case 3:
            return bytes_with_fault(content, random)
        case _:
            above[key] = random.choice(VALUES)
    return json.dumps(document).encode()


def bytes_with_fault(content: bytes, random: Random) -> bytes:
    """Bytes cut short, with some that are others, are left out, stand twice or are put in between."""
    at, length = random.randrange(len(content) + 1), random.choice((1, 1, 2, 8, 64))
    before, piece, after = content[:at], content[at : at + length], content[at + length :]
    match random.randrange(5):
        case 0:
            return before
        case 1:
            return before + random.randbytes(length) + after
        case 2:
            return before + after
        case 3:
            return before + piece + piece + after
    return before + random.choice(PIECES) + content[at:]


def lines_with_fault(content: bytes, random: Random) -> bytes:
    """Lines of which one is damaged, gone, twice, at another place, or has another piece of JSON for its own."""
    lines = content.splitlines()
    at = random.randrange(len(lines))
    match random.randrange(5):
        case 0:
            lines[at] = json_with_fault(lines[at], random)
        case 1:
            del lines[at]
        case 2:
            lines.insert(random.randrange(len(lines)), lines[at])
        case 3:
            lines[at] = json.dumps(random.choice(VALUES)).encode()
        case _:
            lines[at] = bytes_with_fault(lines[at], random)
    return b"\n".join(lines) + random.choice((b"\n", b"\n", b""))


def _nested(value: Any, times: int) -> Any:
    for _ in range(times):
        value = [value]
    return value


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every value below a document, as the list or mapping that holds it and its position or name."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value)
