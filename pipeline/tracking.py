"""MLflow: the only file that knows it. The run folder is the truth; what is here is its projection.

A parent run for the chain with a nested run for the baseline and for each stage. Metrics stand on both, on the parent
with step = 0 for the baseline and position + 1 for a stage, so that its charts draw the trajectory.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.model import OnnxModel
from pipeline.record import ModelRecord, Record, StageRecord

LOG = logging.getLogger("shrinkline")

EXPERIMENT = "shrinkline"
PARAM_LENGTH = 6000  # MLflow's limits: characters a value, entries a call
BATCH_LENGTH = 100


@contextmanager
def open_tracking(record: Record, runs: Path, register: str | None = None) -> Iterator["Tracking"]:
    """Tracking for one run, ended with the status that the run had.

    Args:
        record: of the run, as it is before any work.
        runs: the default database `mlflow.db` lies here, unless MLFLOW_TRACKING_URI says otherwise.
        register: a name for the last model in the model registry.
    """
    tracking = Tracking(record, runs, register)
    status = "KILLED"  # what is left if an interrupt ends the block
    try:
        yield tracking
        status = "FINISHED"
    finally:
        tracking.end("FAILED" if record.failure else status)


class Tracking:
    """Projects a record to MLflow as it grows. A server that is down costs one warning, never the run."""

    def __init__(self, record: Record, runs: Path, register: str | None) -> None:
        self.register, self.done, self.down = register, 0, False
        self.children: dict[str, str] = {}
        self._tolerant(self._open, record, runs)

    def update(self, record: Record) -> None:
        """Log what is new in the record."""
        self._tolerant(self._update, record)

    def finish(self, record: Record, final: OnnxModel) -> None:
        """Log verdict, record and config, and the last model in MLflow's ONNX flavour."""
        self._tolerant(self._finish, record, final)

    def end(self, status: str) -> None:
        """Close the parent run."""
        self._tolerant(lambda: self.client.set_terminated(self.parent, status))

    def _open(self, record: Record, runs: Path) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # standard output is data
        import mlflow

        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(runs / 'mlflow.db').resolve()}"
        with _one_at_a_time(runs / "mlflow.lock"):
            self.client = mlflow.MlflowClient(self.uri)  # makes the database where there is none
            self.experiment = self._experiment(runs)
        tags = {"shrink_uid": record.run, "data.digest": str(record.data["test"]["digest"])}  # type: ignore[index, call-overload]
        tags |= {f"git.{k}": str(record.environment[f"git_{k}"]) for k in ("commit", "dirty")}
        self.parent = self.client.create_run(self.experiment, tags=tags, run_name=record.run).info.run_id
        self._log(self.parent, params=flatten(record.config), tags={"warnings": "\n".join(record.warnings)})

    def _update(self, record: Record) -> None:
        if record.baseline and "baseline" not in self.children:
            self._child(record, "baseline", record.baseline, 0)
        for stage in record.stages[self.done :]:
            self._child(record, f"{stage.position}-{stage.name}", stage, stage.position + 1)
            self.done += 1

    def _finish(self, record: Record, final: OnnxModel) -> None:
        tags = {f"gate.{gate.name}": f"{gate.verdict}: {gate.message}" for gate in record.gates}
        self._log(self.parent, tags=tags | {"verdict": record.verdict or "none"})
        for name in ("record.json", "config.yaml"):
            self.client.log_artifact(self.parent, str(Path(record.folder) / name))
        self._log_model(final)

    def _experiment(self, runs: Path) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self.client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        local = self.uri.startswith("sqlite:")
        place = (runs / "mlartifacts").resolve().as_uri() if local else None
        return str(self.client.create_experiment(name, artifact_location=place))

    def _child(self, record: Record, name: str, found: ModelRecord, step: int) -> None:
        """A nested run with a model's settings, figures, training curves and files."""
        tags = {"mlflow.parentRunId": self.parent, "digest": found.digest, "form": found.form}
        child = self.client.create_run(self.experiment, tags=tags, run_name=name).info.run_id
        self.children[name] = child
        stage = found if isinstance(found, StageRecord) else None
        figures = metrics(found)
        self._log(child, params=flatten(stage.settings) if stage else {}, metrics=points(figures, step))
        self._log(self.parent, metrics=points(figures, step))
        self._log(child, metrics=[(key, v, i) for key, values in curves(found).items() for i, v in enumerate(values)])
        folder = Path(record.folder)
        self.client.log_artifacts(child, str(folder / found.folder), "model")
        self.client.log_artifact(child, str(folder / found.file), "deployed")
        self.client.set_terminated(child, "FINISHED")

    def _log(
        self,
        run: str,
        *,
        params: dict[str, Any] | None = None,
        metrics: Sequence[tuple[str, float, int]] = (),
        tags: dict[str, str] | None = None,
    ) -> None:
        """Everything in as few calls as MLflow allows; metrics are (name, value, step)."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        parameters = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in (params or {}).items()]
        labels = [RunTag(key, value[:PARAM_LENGTH]) for key, value in (tags or {}).items()]
        numbers = [Metric(key, value, now, step) for key, value, step in metrics]
        size = BATCH_LENGTH
        for i in range(0, max(len(parameters), len(labels), len(numbers)), size):
            self.client.log_batch(run, numbers[i : i + size], parameters[i : i + size], labels[i : i + size])

    def _log_model(self, final: OnnxModel) -> None:
        import mlflow
        import mlflow.onnx
        import onnx
        import onnxruntime

        example = {name: value.numpy() for name, value in final.example.items()}
        outputs = {name: value.numpy() for name, value in final.predict(final.example).items()}
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(self.uri)
        try:
            with mlflow.start_run(run_id=self.parent, nested=True):
                mlflow.onnx.log_model(
                    onnx.load(final.path),
                    name="model",
                    signature=mlflow.models.infer_signature(example, outputs),
                    input_example=example,
                    registered_model_name=self.register,
                    # Given, because inferring them loads the model in yet another process.
                    pip_requirements=[f"onnx=={onnx.__version__}", f"onnxruntime=={onnxruntime.__version__}"],
                    save_as_external_data=False,
                )
        finally:
            mlflow.set_tracking_uri(before)

    def _tolerant(self, action: Callable[..., None], *args: Any) -> None:
        """Do it; an outage becomes one warning, after which nothing more is tried."""
        from alembic.util import CommandError
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if self.down:
            return
        try:
            action(*args)
        except (MlflowException, SQLAlchemyError, CommandError, OSError, ImportError) as error:  # the last: its driver
            self.down = True
            first = (str(error).splitlines() or [type(error).__name__])[0]
            LOG.warning("MLflow tracking stopped: %s; the run folder has everything", first)


def metrics(found: ModelRecord) -> dict[str, float]:
    """All numbers of a record's MEASURE and of its latencies, by name; intervals as `_low` and `_high`."""
    figures: dict[str, float] = {}
    for name in (*ModelRecord.model_fields, "seconds"):
        value = getattr(found, name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            figures[name] = value
        elif isinstance(value, BaseModel):
            _spread(figures, name, value)
    for name, estimate in found.metrics.items():
        _spread(figures, f"metric.{name}", estimate)
    for entry in getattr(found, "latency", []):
        kind = f"latency.{entry.get('runtime')}.threads{entry.get('threads')}.batch{entry.get('batch')}"
        flat = flatten(entry)
        numbers = {k: v for k, v in flat.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        figures |= {f"{kind}.{key}": float(value) for key, value in numbers.items()}
    return figures


def points(figures: dict[str, float], step: int) -> list[tuple[str, float, int]]:
    """Figures at one step."""
    return [(name, value, step) for name, value in figures.items()]


def curves(found: ModelRecord) -> dict[str, list[float]]:
    """Reports that are lists of equal dictionaries of numbers, such as a training history: one curve a key."""
    result: dict[str, list[float]] = {}
    for report, rows in found.reports.items():
        if isinstance(rows, list) and rows and all(isinstance(r, dict) and "epoch" in r for r in rows):
            keys = [k for k in rows[0] if k != "epoch" and all(isinstance(r.get(k), int | float) for r in rows)]  # type: ignore[union-attr, arg-type]
            result |= {f"{report}.{key}": [float(r[key]) for r in rows] for key in keys}  # type: ignore[arg-type, index]
    return result


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON as one level with dotted keys."""
    if isinstance(value, dict) and value:
        return {k: v for key, inner in value.items() for k, v in flatten(inner, f"{prefix}.{key}".lstrip(".")).items()}
    if isinstance(value, list) and any(isinstance(v, dict) for v in value):
        return {k: v for i, inner in enumerate(value) for k, v in flatten(inner, f"{prefix}.{i}".lstrip(".")).items()}
    return {prefix: json.dumps(value) if isinstance(value, list | dict) else value} if prefix else {}


def _spread(figures: dict[str, float], name: str, value: BaseModel) -> None:
    for key, number in value.model_dump().items():
        figures[name if key == "value" else f"{name}_{key}"] = number


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """A lock of the kernel's: making the database's tables twice at once fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
