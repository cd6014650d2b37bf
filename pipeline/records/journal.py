"""journal.jsonl: what happened in a run, a line an event, each on disk before the next thing happens."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PositiveInt, ValidationError

from pipeline.base.files import locked, parse_json
from pipeline.errors import LockTimeoutError
from pipeline.records.fields import Time

NEEDED = {"begin": {"place"}, "made": {"place"}, "measured": {"place", "key", "finished"}}
"""What is read of an event beside its time and kind, by its kind."""


class Event(BaseModel):
    """What is read of the events of a run, where it is there; see `NEEDED`."""

    time: Time | None = None
    event: str
    place: str = ""
    key: str | None = None
    folder: str = ""
    processes: PositiveInt = 1
    finished: Time | None = None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of the folder of a run or a comparison, as long as this one works on it.

    Raises:
        LockTimeoutError: another one does.
    """
    with locked(folder / "lock", timeout=0) as ours:
        if not ours:
            raise LockTimeoutError("another process works on this run", where=str(folder))
        yield


class Journal:
    """Appends lines of JSON to a file.

    Args:
        path: the file; what an earlier process wrote stays, and a torn last line is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("ab", buffering=0)
        self.size = len(_whole(path.read_bytes()))
        self.file.truncate(self.size)

    def write(self, event: str, **details: Any) -> None:
        """Add an event, with its time."""
        self.append({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **details})

    def append(self, line: dict[str, Any]) -> None:
        """Add a line and wait until it is on disk; a line that does not fit leaves no trace."""
        content = json.dumps(line).encode() + b"\n"
        try:
            while content:
                content = content[self.file.write(content) :]
            os.fsync(self.file.fileno())
        except OSError:
            self.file.truncate(self.size)
            raise
        self.size = os.fstat(self.file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a line that was being written when the process died is left out.

    Raises:
        ValueError: a line is no mapping in JSON.
        OSError: the file is there and cannot be read.
    """
    lines = _whole(path.read_bytes()).split(b"\n")[:-1] if path.exists() else []
    return [_mapping(line, i) for i, line in enumerate(lines, 1)]


def events(path: Path) -> list[dict[str, Any]]:
    """The events of a run, each with what is read of its kind. Raises as `read`."""
    lines = read(path)
    for i, line in enumerate(lines, 1):
        try:
            missing = NEEDED.get(Event.model_validate(line).event, set()) - line.keys()
        except ValidationError as error:
            missing = {str(error.errors()[0]["loc"][0])}
        if missing:
            raise ValueError(f"line {i} has no `{min(missing)}` that fits")
    return lines


def unfinished(events: list[dict[str, Any]]) -> str:
    """The place of the stage in which the process died without a word; empty where it did not."""
    begun: dict[str, str] = {}  # places by key; a stage may begin something that is kept by itself, and go on after it
    for event in events:
        if event["event"] == "begin":
            begun[event.get("key", event["place"])] = event["place"]
        elif event["event"] == "made":
            begun.pop(event.get("key", event["place"]), None)
        elif event["event"] in ("start", "stopped", "failed", "end"):
            begun.clear()
    return list(begun.values())[-1] if begun else ""


def _mapping(line: bytes, number: int) -> dict[str, Any]:
    try:
        content = parse_json(line)
    except ValueError as error:
        raise ValueError(f"line {number} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"line {number} is no mapping")
    return content


def _whole(content: bytes) -> bytes:
    return content[: content.rfind(b"\n") + 1]
