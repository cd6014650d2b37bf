"""How often a test split was looked at: a line for each model that was measured on it, in one folder of runs.

Each look is a chance to choose by it. A figure that was the best of a hundred looks is less than it seems.
"""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from pipeline.base.files import locked
from pipeline.errors import ConfigError, blame
from pipeline.records.journal import Journal, read

FILE, LOCK = "test_uses.jsonl", "test_uses.lock"


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
    with locked(runs / LOCK):
        with blame(ConfigError, str(path), fix="Repair or remove it; the count begins anew without it"):
            models = {line["model"] for line in read(path) if line["test"] == test}
        if model not in models:
            time = datetime.now(UTC).isoformat(timespec="seconds")
            with closing(Journal(path)) as ledger:
                ledger.append({"test": test, "model": model, "run": run, "time": time})
    return len(models | {model})
