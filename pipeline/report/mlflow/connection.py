"""A connection to MLflow that makes everything once, and that an outage costs one warning.

Everything is searched by its `shrink_uid` tag before it is created, and metrics carry the times of the record: to
project a record once more changes nothing. So a projection that broke off, at whatever request, is simply done again.
"""

import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.base.files import locked
from pipeline.errors import TrackingError
from pipeline.report.mlflow.address import URI, address, without_secrets
from pipeline.report.mlflow.database import Database
from pipeline.report.mlflow.pages import ABOUT, NOTE, experiment_tags

LOG = logging.getLogger("shrinkline")

EXPERIMENT = "shrinkline"
UID, PARENT = "shrink_uid", "mlflow.parentRunId"
STOPPED = "MLflow tracking stopped: %s; the run folder has everything; later: %s"
PARAM_LENGTH = 6000  # MLflow's limits: characters a value, entries a call
BATCH_LENGTH = 100
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; MLflow's own 120 would hold up a run
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is data
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # looked at when MLflow is imported; it would report to its makers
}

Point = tuple[str, float, int, int]
"""Of a metric: name, value, step, time in MLflow's milliseconds."""


class Connection:
    """MLflow's client, and the experiment that everything goes into.

    Args:
        runs: the default database `mlflow.db` lies here, unless MLFLOW_TRACKING_URI says otherwise.
        later: the command that logs what an outage left out.
    """

    def __init__(self, runs: Path, later: str) -> None:
        self.runs, self.later = runs, later
        self.problem = ""

    def open(self) -> None:
        """Reach the server, or make the database."""
        import mlflow  # noqa: F401  # it sets the levels of its loggers, which are then ours

        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.runs.mkdir(parents=True, exist_ok=True)
        with locked(self.runs / "mlflow.lock"):  # making the database's tables twice at once fails
            self.client = _client(os.environ.get(URI) or self._default())
            self.experiment = self._experiment()

    def _default(self) -> str:
        """The URI of the default database, which is there then."""
        self.database = Database(self.runs)
        self.database.make()
        return self.database.uri

    def insist(self) -> None:
        """Raise TrackingError where there was an outage."""
        if self.problem:
            raise went_away(self.problem, self.later)

    def find(self, uid: str) -> Any:
        """The run with this uid, None where there is none."""
        matches = self.client.search_runs([self.experiment], tagged(uid), max_results=1)
        return matches[0] if matches else None

    def run(self, uid: str, name: str, when: str, tags: dict[str, str]) -> Any:
        """The run with this uid, created where there is none."""
        return self.find(uid) or self.create(uid, name, when, tags)

    def create(self, uid: str, name: str, when: str, tags: dict[str, str]) -> Any:
        """A new run with this uid."""
        arguments: dict[str, Any] = {"tags": {**tags, UID: searchable(uid)}, "run_name": name}
        return self.client.create_run(self.experiment, milliseconds(when), **arguments)

    def log(
        self,
        run: str,
        *,
        params: dict[str, Any] | None = None,
        metrics: Sequence[Point] = (),
        tags: dict[str, str] | None = None,
    ) -> None:
        """Everything in as few calls as MLflow allows."""
        from mlflow.entities import Metric, Param, RunTag

        parameters = [Param(allowed(key), str(value)[:PARAM_LENGTH]) for key, value in (params or {}).items()]
        labels = [RunTag(allowed(key), value[:PARAM_LENGTH]) for key, value in (tags or {}).items()]
        numbers = [Metric(allowed(key), value, when, step) for key, value, step, when in metrics]
        size = BATCH_LENGTH
        for i in range(0, max(len(parameters), len(labels), len(numbers)), size):
            self.client.log_batch(run, numbers[i : i + size], parameters[i : i + size], labels[i : i + size])

    def tolerant(self, action: Callable[..., None], *args: Any) -> None:
        """Do it, again after a pause where it fails; an outage becomes one warning, then nothing more is tried."""
        if self.problem:
            return
        tries = 1 + int(os.environ.get(RETRIES) or 2)  # the user's setting; ours is for MLflow's client
        with settings():
            self.problem = _problem_of(tries, action, *args)
        if self.problem:
            LOG.warning(STOPPED, self.problem, self.later)

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        if experiment := self.client.get_experiment_by_name(name):
            if experiment.lifecycle_stage == "deleted":
                where = "" if os.environ.get(URI) else f"{URI}={address(self.runs)} "
                fix = f"{where}mlflow experiments restore --experiment-id {experiment.experiment_id}"
                fix = f"Name another one by MLFLOW_EXPERIMENT_NAME, or restore it: {fix}"
                raise TrackingError(f"the experiment `{name}` was deleted", fix=fix)
            for key, value in experiment_tags().items():
                if key not in experiment.tags:  # whoever changed one wants it so
                    self.client.set_experiment_tag(experiment.experiment_id, key, value)
            return str(experiment.experiment_id)
        is_local = (os.environ.get(URI) or "sqlite:").startswith("sqlite:")
        place = (self.runs / "mlartifacts").resolve().as_uri() if is_local else None
        try:
            tags = experiment_tags() | {NOTE: ABOUT}
            return str(self.client.create_experiment(name, artifact_location=place, tags=tags))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                raise
            return str(self.client.get_experiment_by_name(name).experiment_id)


class UnreachableError(TrackingError):
    """MLflow cannot be reached at all."""


def unreachable(problem: str) -> UnreachableError:
    """The error where tracking is required and cannot begin."""
    return UnreachableError(f"MLflow cannot be reached: {problem}", fix="Look at MLFLOW_TRACKING_URI")


def went_away(problem: str, later: str) -> TrackingError:
    """The error where tracking is required and broke off."""
    return TrackingError(f"MLflow went away: {problem}", fix=f"Later: {later}")


def _client(uri: str) -> Any:
    """MLflow's client. Raises TrackingError where MLflow knows no such kind of address, or its driver is missing."""
    from mlflow import MlflowClient
    from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException

    try:
        return MlflowClient(uri)
    except ModuleNotFoundError as error:
        problem = f"{URI} is {without_secrets(uri)}, which needs the module `{error.name}`, and that is not installed"
        raise TrackingError(problem, fix="Install the package that has it") from None
    except UnsupportedModelRegistryStoreURIException:
        server = uri.rpartition("://")[2].lstrip("/")
        fix = f"Write http://{server} for a server, or sqlite:////folder/mlflow.db for a database"
        raise TrackingError(f"{URI} is {uri}, an address of no kind that MLflow knows", fix=fix) from None


def _problem_of(tries: int, action: Callable[..., None], *args: Any) -> str:
    """Why it failed in the end; empty where it did not."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    problem = ""
    for i in range(tries):
        try:
            action(*args)
            return ""
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError, TrackingError) as error:
            problem = without_secrets((str(error).splitlines() or [type(error).__name__])[0]).removesuffix(".")
        if i + 1 < tries:
            time.sleep(2**i)
    return problem


def tagged(uid: str) -> str:
    """A search for what carries this uid; the name of a run is that of a user's file and may hold a quote."""
    quote = '"' if "'" in uid else "'"
    return f"tags.{UID} = {quote}{searchable(uid)}{quote}"


def searchable(uid: str) -> str:
    """A uid as it is a tag: MLflow's searches take no text that holds quotes of both kinds."""
    return uid.replace('"', "%22") if "'" in uid else uid


def milliseconds(when: str) -> int:
    """MLflow's clock."""
    return int(datetime.fromisoformat(when).timestamp() * 1000)


def timed(points: Sequence[tuple[str, float, int]], when: str) -> list[Point]:
    """Points (name, value, step) at the time of the record."""
    return [(*point, milliseconds(when)) for point in points]


def allowed(name: str) -> str:
    """A name that MLflow takes: letters, digits, and _ - . : / and space."""
    return re.sub(r"[^\w\-./: ]", "_", name)


@contextmanager
def settings() -> Iterator[None]:
    """Our settings for MLflow's client. It sends a request once: its own retry would create a second run where the
    first was created and only the answer was lost; `_tolerant` searches again first.
    """
    changed = {RETRIES: "0"} | {name: os.environ.get(name) or value for name, value in DEFAULTS.items()}
    before = {name: os.environ[name] for name in changed if name in os.environ}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name in changed.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
