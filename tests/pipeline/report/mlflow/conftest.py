"""MLflow without the settings of this machine, what the user is warned of, and copies of a run to be logged."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.records.record import Record
from pipeline.runner import run
from tests.tracked import MINE, Database
from tests.users import MINE_ALONE


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Warnings that the user sees, whatever another test made of the logger."""
    log, messages = logging.getLogger("shrinkline"), list[str]()
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    yield messages
    log.removeHandler(handler)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sync")


@pytest.fixture
def finished(kept: dict[str, Path], project: Callable[..., Any], place: Path) -> Path:
    """The folder of a run that ended, of which MLflow has nothing; its projections are those of its copies."""
    if not kept:
        made = run(project(MINE_ALONE, **{"mine.py": MINE}), runs=place / "made", register="short", track=False)
        kept["run"] = Path(made.folder)
    return kept["run"]


@pytest.fixture
def another(finished: Path, place: Path) -> Callable[..., Path]:
    """another(**changes): the run folder once more, under a name of its own, with changes to its record."""

    def make(ended: bool = True, **changes: Any) -> Path:
        runs = place / "runs"
        folder = runs / f"copy-{len(list(runs.glob('copy-*'))):04}"
        shutil.copytree(finished, folder)
        Record.load(folder).model_copy(update={"run": folder.name, **changes}).save()
        if not ended:
            lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
            (folder / "journal.jsonl").write_text("".join(line for line in lines if '"end"' not in line))
        return folder

    return make


@pytest.fixture
def local(place: Path) -> Database:
    """The database that is there without a server."""
    runs = place / "runs"
    return Database(f"sqlite:///{runs / 'mlflow.db'}", runs / "mlflow.db", runs / "mlartifacts")
