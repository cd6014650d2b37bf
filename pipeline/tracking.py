"""MLflow: the only file that knows it. The run folder is the truth; what is here is its projection.

A parent run for the chain with a nested run for the baseline and for each stage. Metrics stand on both, on the parent
with step = 0 for the baseline and position + 1 for a stage, so that its charts draw the trajectory.

Everything is searched by its `shrink_uid` tag before it is created, and metrics carry the times of the record: to
project a record once more changes nothing. So a projection that broke off, at whatever request, is simply done again.
A run that ended is FINISHED, one that failed FAILED, one that was stopped or died without a word KILLED.
"""

import fcntl
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline import journal
from pipeline.errors import TrackingError
from pipeline.figures import curves, flatten, metrics, points
from pipeline.model import OnnxModel
from pipeline.record import ModelRecord, Record, StageRecord

LOG = logging.getLogger("shrinkline")

EXPERIMENT = "shrinkline"
UID = "shrink_uid"
STATE, LOCK = "tracking.json", "tracking.lock"
PARAM_LENGTH = 6000  # MLflow's limits: characters a value, entries a call
BATCH_LENGTH = 100
STOPPED = (130, 143)
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; MLflow's own 120 would hold up a run
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is data
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@contextmanager
def open_tracking(record: Record, runs: Path, require: bool = False) -> Iterator["Tracking"]:
    """Tracking for one run, ended with the status that the run had.

    Args:
        record: of the run, as it is before any work.
        runs: the default database `mlflow.db` lies here, unless MLFLOW_TRACKING_URI says otherwise.
        require: raise TrackingError where MLflow cannot be reached, at once or when the run is done.
    """
    with _locked(Path(record.folder) / LOCK):
        tracking, done = Tracking(record, runs, require), False
        try:
            yield tracking
            done = True
        finally:
            # Where something other than an error of ours ended the block, not all of the record may be logged.
            tracking.end(record, _status(record, done), whole=done or record.failure is not None)
    if require and tracking.problem:
        raise TrackingError(f"MLflow went away: {tracking.problem}", fix=f"Later: shrink sync {record.folder}")


def sync(folder: Path) -> bool:
    """Project a run folder that MLflow does not have whole; gives whether there was something to do.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    with _locked(folder / LOCK, wait=False) as ours:
        if not ours:
            LOG.warning("%s: another process runs or logs it", folder.name)
        if not ours or _is_synced(folder):
            return False
        record, events = Record.load(folder), journal.read(folder / "journal.jsonl")
        done = bool(events) and events[-1]["event"] == "end"
        tracking = Tracking(record, folder.parent, require=True)
        tracking.update(record)
        if done and record.final:
            tracking.finish(record, _deployed(Path(record.folder), record.final))
        tracking.end(record, _status(record, done), when=events[-1]["time"] if events else record.started)
    if tracking.problem:
        raise TrackingError(f"MLflow went away: {tracking.problem}", fix=f"Later: shrink sync {folder}")
    return True


class Tracking:
    """Projects a record to MLflow as it grows. A server that is down costs one warning, never the run."""

    def __init__(self, record: Record, runs: Path, require: bool = False) -> None:
        self.runs, self.state = runs, Path(record.folder) / STATE
        self.problem = ""
        self.done: set[str] = set()
        self._keep_state(synced=False)
        self._tolerant(self._open, record)
        if require and self.problem:
            raise TrackingError(f"MLflow cannot be reached: {self.problem}", fix="Look at MLFLOW_TRACKING_URI")

    def update(self, record: Record) -> None:
        """Log what is new in the record."""
        self._tolerant(self._update, record)

    def finish(self, record: Record, final: OnnxModel) -> None:
        """Log verdict, record and config, and the last model in MLflow's ONNX flavour."""
        self._tolerant(self._finish, record, final)

    def end(self, record: Record, status: str, *, when: str = "", whole: bool = True) -> None:
        """Close the parent run.

        Args:
            record: as it ended.
            status: MLflow's word for how.
            when: the time at which it ended, if not now.
            whole: all of the record is logged, `sync` has nothing to add.
        """
        self._tolerant(self._end, record, status, when)
        if whole and not self.problem:
            self._keep_state(synced=True)

    def _open(self, record: Record) -> None:
        import mlflow

        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(self.runs / 'mlflow.db').resolve()}"
        with _locked(self.runs / "mlflow.lock"):  # making the database's tables twice at once fails
            self.client = mlflow.MlflowClient(self.uri)  # makes the database where there is none
            self.experiment = self._experiment()
        tags = {"mlflow.source.name": "shrink run", "data.digest": str(record.data["test"]["digest"])}  # type: ignore[index, call-overload]
        tags |= {f"git.{k}": str(record.environment[f"git_{k}"]) for k in ("commit", "dirty")}
        parent = self._run(record.run, record.run, record.started, tags)
        self.parent = str(parent.info.run_id)
        if parent.info.status != "RUNNING":
            self.client.update_run(self.parent, status="RUNNING")
        of_dead = f"tags.`mlflow.parentRunId` = '{self.parent}' and attributes.status = 'RUNNING'"
        for child in self.client.search_runs([self.experiment], of_dead):
            self.client.set_terminated(child.info.run_id, "KILLED")
        self._log(self.parent, params=flatten(record.config), when=record.started)

    def _update(self, record: Record) -> None:
        if record.baseline:
            self._child(record, "baseline", record.baseline, 0)
        for stage in record.stages:
            self._child(record, f"{stage.position}-{stage.name}", stage, stage.position + 1)

    def _finish(self, record: Record, final: OnnxModel) -> None:
        tags = {f"gate.{gate.name}": f"{gate.verdict}: {gate.message}" for gate in record.gates}
        self._log(self.parent, tags=tags | {"verdict": record.verdict or "none"}, when=record.started)
        for name in ("record.json", "config.yaml"):
            self.client.log_artifact(self.parent, str(Path(record.folder) / name))
        self._log_model(record, final)

    def _end(self, record: Record, status: str, when: str) -> None:
        tags = {"warnings": "\n".join(record.warnings), "notes": "\n".join(record.notes)}
        self._log(self.parent, tags=tags, when=record.started)
        self.client.set_terminated(self.parent, status, _milliseconds(when) if when else None)

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self.client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        local = self.uri.startswith("sqlite:")
        place = (self.runs / "mlartifacts").resolve().as_uri() if local else None
        try:
            return str(self.client.create_experiment(name, artifact_location=place))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise
            return str(self.client.get_experiment_by_name(name).experiment_id)

    def _run(self, uid: str, name: str, when: str, tags: dict[str, str]) -> Any:
        """The run with this uid, created where there is none."""
        found = self.client.search_runs([self.experiment], _tagged(uid), max_results=1)
        return (
            found[0]
            if found
            else self.client.create_run(self.experiment, _milliseconds(when), {**tags, UID: uid}, name)
        )

    def _child(self, record: Record, name: str, found: ModelRecord, step: int) -> None:
        """A nested run with a model's settings, figures, training curves and files."""
        if name in self.done:
            return
        when = found.finished
        run = self._run(f"{record.run}/{step}", name, when, {"mlflow.parentRunId": self.parent})
        # One that ended at another time is of a result that was lost and made again.
        if (run.info.status, run.info.end_time) != ("FINISHED", _milliseconds(when)):
            child, figures = str(run.info.run_id), points(metrics(found), step)
            settings = found.settings if isinstance(found, StageRecord) else {}
            drawn = [(key, v, i) for key, values in curves(found).items() for i, v in enumerate(values)]
            tags = {"digest": found.digest, "form": found.form}
            self._log(self.parent, metrics=figures, when=when)
            self._log(child, params=flatten(settings), metrics=[*figures, *drawn], tags=tags, when=when)
            folder = Path(record.folder)
            self.client.log_artifacts(child, str(folder / found.folder), "model")
            self.client.log_artifact(child, str(folder / found.file), "deployed")
            self.client.set_terminated(child, "FINISHED", _milliseconds(when))  # last: it says that all is there
        self.done.add(name)

    def _log(
        self,
        run: str,
        *,
        when: str,
        params: dict[str, Any] | None = None,
        metrics: Sequence[tuple[str, float, int]] = (),
        tags: dict[str, str] | None = None,
    ) -> None:
        """Everything in as few calls as MLflow allows; metrics are (name, value, step)."""
        from mlflow.entities import Metric, Param, RunTag

        now = _milliseconds(when)
        parameters = [Param(_allowed(key), str(value)[:PARAM_LENGTH]) for key, value in (params or {}).items()]
        labels = [RunTag(_allowed(key), value[:PARAM_LENGTH]) for key, value in (tags or {}).items()]
        numbers = [Metric(_allowed(key), value, now, step) for key, value, step in metrics]
        size = BATCH_LENGTH
        for i in range(0, max(len(parameters), len(labels), len(numbers)), size):
            self.client.log_batch(run, numbers[i : i + size], parameters[i : i + size], labels[i : i + size])

    def _log_model(self, record: Record, final: OnnxModel) -> None:
        """The last model, once, and where asked its version in the registry, once.

        By hand and not with `mlflow.onnx.log_model`: that cannot be taken up again, gives the model the metrics of
        step 0, and works with the process's current run and tracking URI, which are the caller's.
        """
        from mlflow.entities import LoggedModelOutput

        found = self.client.search_logged_models([self.experiment], filter_string=_tagged(record.run))
        given: dict[str, Any] = {"name": "model", "source_run_id": self.parent, "tags": {UID: record.run}}
        model = found[0] if found else self.client.create_logged_model(self.experiment, **given)
        outputs = self.client.get_run(self.parent).outputs
        if model.model_id not in [output.model_id for output in (outputs and outputs.model_outputs) or []]:
            self.client.log_outputs(self.parent, [LoggedModelOutput(model.model_id, len(record.stages))])
        if str(model.status) != "READY":
            with tempfile.TemporaryDirectory() as folder:
                self._write_model(Path(folder) / "model", final, model)
                self.client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
            self.client.finalize_logged_model(model.model_id, "READY")
        if record.register_as:
            self._register(record, record.register_as, model)

    def _write_model(self, folder: Path, final: OnnxModel, model: Any) -> None:
        """Write a model in MLflow's ONNX flavour."""
        import mlflow.onnx
        import onnx
        import onnxruntime

        example = {name: value.numpy() for name, value in final.example.items()}
        outputs = {name: value.numpy() for name, value in final.predict(final.example).items()}
        given: dict[str, Any] = {"artifact_path": model.artifact_location, "run_id": self.parent}
        mlflow.onnx.save_model(
            onnx.load(final.path),
            str(folder),
            mlflow_model=mlflow.models.Model(**given, model_id=model.model_id, model_uuid=model.model_id),
            signature=mlflow.models.infer_signature(example, outputs),
            input_example=example,
            # Given, because inferring them loads the model in yet another process.
            pip_requirements=[f"onnx=={onnx.__version__}", f"onnxruntime=={onnxruntime.__version__}"],
            save_as_external_data=False,
        )

    def _register(self, record: Record, name: str, model: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = self.client.search_model_versions(_tagged(record.run))
        if not any(version.name == name for version in versions):
            # Its place and not models:/ID, which MLflow would look up at the process's current tracking URI.
            given: dict[str, Any] = {"run_id": self.parent, "model_id": model.model_id, "tags": {UID: record.run}}
            self.client.create_model_version(name, model.artifact_location, **given)

    def _tolerant(self, action: Callable[..., None], *args: Any) -> None:
        """Do it, again after a pause where it fails; an outage becomes one warning, then nothing more is tried."""
        if self.problem:
            return
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        tries = 1 + int(os.environ.get(RETRIES) or 2)
        for i in range(tries):
            try:
                with _requests_once():
                    action(*args)
                return
            except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:  # ImportError: of a driver
                problem = (str(error).splitlines() or [type(error).__name__])[0]
            if i + 1 < tries:
                time.sleep(2**i)
        self.problem = problem
        LOG.warning(
            "MLflow tracking stopped: %s; the run folder has everything; later: shrink sync %s",
            problem,
            self.state.parent,
        )

    def _keep_state(self, *, synced: bool) -> None:
        temporary = self.state.with_suffix(".tmp")
        temporary.write_text(json.dumps({"synced": synced}) + "\n")
        temporary.replace(self.state)


def _status(record: Record, done: bool) -> str:
    if record.failure:
        return "KILLED" if record.failure.exit_code in STOPPED else "FAILED"
    return "FINISHED" if done else "KILLED"


def _is_synced(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / STATE).read_text())["synced"])
    except (FileNotFoundError, ValueError):  # nothing, or what a crash of the machine left of it
        return False


def _deployed(folder: Path, found: ModelRecord) -> OnnxModel:
    """A model of a run in the form in which it would be deployed; the user's code is not needed for it."""
    from safetensors.torch import load_file

    return OnnxModel(folder / found.file, load_file(folder / found.folder / "example.safetensors"))


def _tagged(uid: str) -> str:
    """A search for what carries this uid; the name of a run is that of a user's file and may hold a quote."""
    quote = '"' if "'" in uid else "'"
    return f"tags.{UID} = {quote}{uid}{quote}"


def _milliseconds(when: str) -> int:
    return int(datetime.fromisoformat(when).timestamp() * 1000)


def _allowed(name: str) -> str:
    """A name that MLflow takes: letters, digits, and _ - . : / and space."""
    return re.sub(r"[^\w\-./: ]", "_", name)


@contextmanager
def _requests_once() -> Iterator[None]:
    """Our settings for MLflow's client. It sends a request once: its own retry would create a second run where the
    first was created and only the answer was lost; `_tolerant` searches again first.
    """
    changed = {RETRIES: "0"} | {name: os.environ.get(name) or value for name, value in DEFAULTS.items()}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """A lock of the kernel's; gives whether it is ours, which can only be false where we do not wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            ours = True
        except BlockingIOError:
            ours = False
        yield ours
