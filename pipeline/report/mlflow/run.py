"""A run in MLflow, as it grows or afterwards.

A parent run for the chain with a nested run for the baseline and for each stage. Metrics stand on both, on the parent
with step = 0 for the baseline and position + 1 for a stage, so that its charts draw the trajectory. A run that ended
is FINISHED, one that failed FAILED, one that was stopped or died without a word KILLED.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pipeline.base.files import locked, read_json, write_whole
from pipeline.records.figures import curves, flatten, metrics, points
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Record
from pipeline.records.rows import chosen_tags
from pipeline.report.mlflow.connection import (
    PARAM_LENGTH,
    PARENT,
    UID,
    Connection,
    allowed,
    milliseconds,
    timed,
    unreachable,
)
from pipeline.report.mlflow.logged_model import Graph, log_model
from pipeline.report.mlflow.pages import NOTE, data_inputs, note, short_name

LOG = logging.getLogger("shrinkline")

STATE, LOCK = "tracking.json", "tracking.lock"
FILES = ("record.json", "config.yaml", "summary.md", "report.html")


class Projection(Protocol):
    """What a run tells as it goes on: `Tracking`, or the other process that has one."""

    def update(self, record: Record) -> None: ...  # noqa: D102  # as in Tracking

    def finish(self, record: Record, final: Graph | None) -> None: ...  # noqa: D102

    def end(self, record: Record, status: str, *, whole: bool = True) -> None: ...  # noqa: D102


@contextmanager
def open_tracking(record: Record, runs: Path, require: bool = False) -> Iterator["Tracking"]:
    """Tracking for one run, ended with the status that the run had.

    Args:
        record: of the run, as it is before any work.
        runs: the default database `mlflow.db` lies here, unless MLFLOW_TRACKING_URI says otherwise.
        require: raise TrackingError where MLflow cannot be reached, at once or when the run is done.
    """
    with locked(Path(record.folder) / LOCK):
        tracking = Tracking(record, runs, require)
        with ended(tracking, record):
            yield tracking
    if require:
        tracking.to.insist()


@contextmanager
def ended(tracking: Projection, record: Record) -> Iterator[None]:
    """Tracking for a block, ended with the status that the run then has."""
    done = False
    try:
        yield
        done = True
    finally:
        # Where something other than an error of ours ended the block, not all of the record may be logged.
        tracking.end(record, status_of(record, done), whole=done or record.failure is not None)


class Tracking:
    """Projects a record to MLflow as it grows. A server that is down costs one warning, never the run."""

    def __init__(self, record: Record, runs: Path, require: bool = False) -> None:
        self.folder = Path(record.folder)
        self.to = Connection(runs, f"shrink sync {self.folder}")
        self.done: set[str] = set()
        self.children: dict[str, Any] | None = None  # by uid; None where it must be asked which there are
        keep_state(self.folder, synced=False)
        self.to.tolerant(self.to.open)
        if require and self.to.problem:
            raise unreachable(self.to.problem)
        self.to.tolerant(self._open, record)
        if require:
            self.to.insist()

    def update(self, record: Record) -> None:
        """Log what is new in the record."""
        self.to.tolerant(self._update, record)

    def finish(self, record: Record, final: Graph | None) -> None:
        """Log the verdict, and the last model in MLflow's ONNX flavour, where it is one graph."""
        self.to.tolerant(self._finish, record, final)

    def end(self, record: Record, status: str, *, when: str = "", whole: bool = True) -> None:
        """Close the parent run; of one that is FINISHED log the record, the config and the reports.

        Args:
            record: as it ended.
            status: MLflow's word for how.
            when: the time at which it ended, if not now.
            whole: all of the record is logged, `sync` has nothing to add.
        """
        self.to.tolerant(self._end, record, status, when)
        if whole and not self.to.problem:
            keep_state(self.folder, synced=True, experiment=self.to.experiment)

    def _open(self, record: Record) -> None:
        tags = {"mlflow.source.name": "shrink run", "data.digest": record.split_digests.get("test", "")}
        tags |= {f"git.{k}": str(record.environment.get(f"git_{k}")) for k in ("commit", "dirty")}
        above = self.to.find(member_uid(record)) if record.comparison else None
        tags |= {PARENT: str(above.info.run_id)} if above else {}
        parent = self.to.run(record.run, short_name(record.run), record.started, tags)
        self.parent = str(parent.info.run_id)
        self.gates = {name for name in parent.data.tags if name.startswith("gate.")}
        if parent.info.status != "RUNNING":
            self.to.client.update_run(self.parent, status="RUNNING")
        self.children = self._below()
        for child in self.children.values():
            if child.info.status == "RUNNING":  # of a process that is dead
                self.to.client.set_terminated(child.info.run_id, "KILLED")
        self.to.log(self.parent, params=flatten(record.config))
        self.to.client.log_inputs(self.parent, datasets=data_inputs(record))

    def _update(self, record: Record) -> None:
        models: list[tuple[str, ModelRecord, int]] = [("baseline", record.baseline, 0)] if record.baseline else []
        models += [(f"{stage.position}-{stage.name}", stage, stage.position + 1) for stage in record.stages]
        new = [model for model in models if model[0] not in self.done]
        children, self.children = self._below() if self.children is None else self.children, None
        pending = [model for model in new if not _is_logged(children.get(f"{record.run}/{model[2]}"), model[1])]
        figures = [point for _, model, step in pending for point in timed(points(metrics(model), step), model.finished)]
        self.to.log(self.parent, metrics=figures)
        for name, model, step in pending:
            uid = f"{record.run}/{step}"
            if uid not in children:
                children[uid] = self.to.create(uid, name, model.finished, {PARENT: self.parent})
            self._fill(str(children[uid].info.run_id), record, model, step)
        self.done |= {name for name, *_ in new}
        self.children = children  # where one of these failed, its answer may be lost, and is asked for again

    def _finish(self, record: Record, final: Graph | None) -> None:
        tags = {f"gate.{gate.name}": f"{gate.verdict}: {gate.message}" for gate in record.gates}
        tags |= dict.fromkeys(self.gates - {allowed(name) for name in tags}, "no limit any more")
        self.to.log(self.parent, tags=tags | {"verdict": record.verdict or "none"} | chosen_tags(record.chosen))
        if final:
            log_model(self.to, self.parent, record, final)
        elif record.register_as:
            LOG.warning("an encoder-decoder is not registered: MLflow has no flavour for several graphs")

    def _end(self, record: Record, status: str, when: str) -> None:
        tags = {"warnings": "\n".join(record.warnings), "notes": "\n".join(record.notes)}
        self.to.log(self.parent, tags=tags | {NOTE: note(self.folder, record, PARAM_LENGTH)})
        if status == "FINISHED":
            log_files(self.to, self.parent, self.folder, FILES)
        self.to.client.set_terminated(self.parent, status, milliseconds(when) if when else None)

    def _below(self) -> dict[str, Any]:
        """The nested runs that there are, by uid."""
        runs = self.to.client.search_runs([self.to.experiment], f"tags.`{PARENT}` = '{self.parent}'")
        return {run.data.tags[UID]: run for run in runs if UID in run.data.tags}

    def _fill(self, child: str, record: Record, model: ModelRecord, step: int) -> None:
        """Log a model's settings, figures, training curves and files to its run, and close it."""
        settings = model.settings if isinstance(model, StageRecord) else {}
        curve_points = [(key, v, i) for key, values in curves(model).items() for i, v in enumerate(values)]
        figures = timed([*points(metrics(model), step), *curve_points], model.finished)
        tags = {"digest": model.digest, "form": model.form}
        self.to.log(child, params=flatten(settings), metrics=figures, tags=tags)
        folder = Path(record.folder)
        self.to.client.log_artifacts(child, str(folder / model.folder), "model")
        log = self.to.client.log_artifacts if (folder / model.file).is_dir() else self.to.client.log_artifact
        log(child, str(folder / model.file), "deployed")
        # Last: it says that all is there.
        self.to.client.set_terminated(child, "FINISHED", milliseconds(model.finished))


def _is_logged(run: Any, model: ModelRecord) -> bool:
    """Whether a run has all of a model; one that ended at another time is of a result that was lost and made again."""
    return run is not None and (run.info.status, run.info.end_time) == ("FINISHED", milliseconds(model.finished))


def member_uid(record: Record) -> str:
    """Of the strategy, in a comparison, that a run is of."""
    return f"{record.comparison}/{(record.origin and record.origin.strategy) or record.config.get('name')}"


def log_files(to: Connection, run: str, folder: Path, names: tuple[str, ...]) -> None:
    """Log those of the files that are there; a report may be missing where the disk was full."""
    for name in names:
        if (folder / name).is_file():
            to.client.log_artifact(run, str(folder / name))


def keep_state(folder: Path, *, synced: bool, experiment: str = "") -> None:
    """Keep in a folder whether MLflow has all of it, and in which experiment."""
    place = {"experiment": experiment} if experiment else {}
    write_whole(folder / STATE, json.dumps({"synced": synced} | place) + "\n")


def is_synced(folder: Path) -> bool:
    """Whether MLflow has all of a folder."""
    return _state(folder).get("synced") is True


def experiment_of(folder: Path) -> str:
    """The experiment in which MLflow has a folder, empty where that is not known."""
    return str(_state(folder).get("experiment", ""))


def _state(folder: Path) -> dict[str, Any]:
    try:
        state = read_json(folder / STATE)
    except (FileNotFoundError, ValueError):  # nothing, or what a crash of the machine left of it
        return {}
    return state if isinstance(state, dict) else {}


def status_of(record: Record, done: bool) -> str:
    """MLflow's word for how a run ended, of which `done` says whether it came to its end."""
    if record.failure:
        return "KILLED" if record.failure.is_stop else "FAILED"
    return "FINISHED" if done else "KILLED"
