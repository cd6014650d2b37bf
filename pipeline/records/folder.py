"""Folders of runs and of comparisons read back: what is in them fits, is what was written, and leads nowhere else."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from pipeline.base.files import file_digest, folder_digest
from pipeline.errors import ConfigError, blame
from pipeline.records import journal
from pipeline.records.comparison import FILE, ComparisonRecord
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import Comparison
from pipeline.records.record import Record

RECORD, JOURNAL = "record.json", "journal.jsonl"

Content = TypeVar("Content")


def load_run(folder: Path, ended: bool = True, expected: str = f"a folder with a {RECORD}") -> Record:
    """The record of a run, found again where its folder is now.

    Args:
        folder: of the run.
        ended: refuse a run that goes on, or was killed; one that failed has ended.
        expected: what a folder is told to be that is none of a run.

    Raises:
        ConfigError: it is no run folder, it cannot be read, it leads out of itself, or its run has not ended.
    """
    if not (folder / RECORD).is_file():
        raise ConfigError("this is no run folder", where=str(folder), expected=expected)
    _refuse_ways_out(folder)
    record = _read(folder / RECORD, lambda file: Record.load(file.parent.resolve()))
    events = load_events(folder) if ended else []
    if events and not record.failure and events[-1]["event"] != "end":  # without a journal it is taken at its word
        fix = f"Wait for it, or go on with it: shrink resume {folder}"
        raise ConfigError("this run has not come to its end", where=str(folder), fix=fix)
    return record


def load_events(folder: Path) -> list[dict[str, Any]]:
    """The journal of a run; nothing where it is gone. Raises ConfigError where it cannot be read."""
    return _read(folder / JOURNAL, journal.events)


def load_comparison(folder: Path) -> ComparisonRecord:
    """The record of a comparison, found again where its folder is now. Raises ConfigError as `load_run`."""
    _refuse_ways_out(folder)
    return _read(folder / FILE, lambda file: ComparisonRecord.load(file.parent.resolve()))


def final_of(record: Record) -> ModelRecord:
    """The last model of a run. Raises ConfigError where the run failed or measured none."""
    fix = f"Go on with it: shrink resume {record.folder}"
    if record.failure:
        problem = f"it ended in {record.failure.where}, so it has no last model"
        raise ConfigError(problem, where=record.folder, fix=fix)
    if record.final is None:
        raise ConfigError("it has not come to its end, so it has no last model", where=record.folder, fix=fix)
    return record.final


def verified(record: Record, model: ModelRecord | Comparison, what: Literal["folder", "file", "predictions"]) -> Path:
    """What a record names of a model, compared with its digests; records of earlier versions have fewer of them.

    Args:
        record: found again where its folder is now.
        model: of it.
        what: its `folder`; its `file` to deploy, with what belongs to that; or its `predictions`.

    Raises:
        ConfigError: it is gone, cannot be read, or is not what was written.
    """
    name, run = str(getattr(model, what)), Path(record.folder)
    fix = f"`shrink resume {record.folder}` puts it back, or makes it again"
    if not (run / name).exists():
        raise ConfigError("it is gone", where=str(run / name), fix=fix)
    of_predictions = what == "predictions"
    names = [file for file in model.digests if (file == model.predictions) == of_predictions and what != "folder"]
    in_folder = what == "folder" or (not of_predictions and Path(name).is_relative_to(model.folder))
    with blame(ConfigError, str(run / name), fix=fix):
        changed = [file for file in names if file_digest(run / file) != model.digests[file]]
        if in_folder and not changed and folder_digest(run / model.folder) != model.digest:
            changed = [model.folder]
    if changed:
        raise ConfigError("it is not what was written", where=str(run / changed[0]), fix=fix)
    return run / name


def _read(file: Path, load: Callable[[Path], Content]) -> Content:
    """What a file of a run holds; what cannot be read is told apart from what is damaged."""
    fix = "Run it again"
    try:
        return load(file)
    except OSError as error:
        problem, fix = f"it cannot be read: {error.strerror}", "Let this user read it"
    except ValidationError as error:
        first = error.errors()[0]
        place, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        problem = f"it is damaged: {place} {message}".replace(":  ", ": ")
    except ValueError as error:
        problem = f"it is damaged: {error}"
    raise ConfigError(problem, where=str(file), fix=fix)


def _refuse_ways_out(folder: Path) -> None:
    """Refuse a folder with a link that leads out of it: its files are written, shown and given on as the run's own."""
    home = folder.resolve()
    for above, folders, files in os.walk(home):
        for path in (Path(above, name) for name in (*folders, *files)):
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                fix = "Put what it leads to in its place, or remove it"
                raise ConfigError("this is a link out of the run folder", where=str(path), fix=fix)
