"""How often a test split was looked at: a line for each model that was measured on it, in one folder of runs.

Each look is a chance to choose by it. A figure that was the best of a hundred looks is less than it seems.
"""

import fcntl
import json
import os
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from pipeline.errors import ConfigError, blame

FILE = "test_uses.jsonl"


def note_use(runs: Path, test: str, model: str, run: str) -> int:
    """Keep that a model was measured on a test split; gives the number of different models that were.

    Args:
        runs: the folder of runs.
        test: digest of the test split.
        model: digest of the model.
        run: its name.

    Raises:
        ConfigError: the ledger cannot be read.
    """
    path = runs / FILE
    with path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # a line that was being written when a process died is no line
        with blame(ConfigError, str(path), fix="Repair or remove it; the count begins anew without it"):
            lines = [json.loads(line) for line in whole.splitlines()]
            models = {line["model"] for line in lines if line["test"] == test}
        if model not in models:
            line = {"test": test, "model": model, "run": run, "time": datetime.now(UTC).isoformat(timespec="seconds")}
            file.truncate(len(whole))
            _append(file, json.dumps(line).encode() + b"\n", len(whole))
    return len(models | {model})


def _append(file: FileIO, content: bytes, size: int) -> None:
    """Add to a file of this size, on disk before it goes on; what does not fit leaves no trace."""
    try:
        while content:
            content = content[file.write(content) :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(size)
        raise
