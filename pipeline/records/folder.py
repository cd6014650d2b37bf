"""A run folder read back: its record, where it has ended its last model, and files that are what was written."""

from pathlib import Path
from typing import Literal

from pipeline.base.files import file_digest, folder_digest
from pipeline.errors import ConfigError, blame
from pipeline.records import journal
from pipeline.records.record import Comparison, ModelRecord, Record


def load_run(folder: Path, ended: bool = True, expected: str = "a folder with a record.json") -> Record:
    """The record of a run, found again where its folder is now.

    Args:
        folder: of the run.
        ended: refuse a run that goes on, or was killed; one that failed has ended.
        expected: what a folder is told to be that is none of a run.

    Raises:
        ConfigError: it is no run folder, it cannot be read, or its run has not ended.
    """
    if not (folder / "record.json").is_file():
        raise ConfigError("this is no run folder", where=str(folder), expected=expected)
    with blame(ConfigError, str(folder), fix="Run it again"):
        record = Record.load(folder.resolve())
        events = journal.read(folder / "journal.jsonl") if ended else []
    if events and not record.failure and events[-1]["event"] != "end":  # without a journal it is taken at its word
        fix = f"Wait for it, or go on with it: shrink resume {folder}"
        raise ConfigError("this run has not come to its end", where=str(folder), fix=fix)
    return record


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
