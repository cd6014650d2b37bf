"""A chain whose runs are tracked, and what MLflow has of them, as it lies on the disk: no API can hide anything."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.mlflow.pages import NOTE, short_name
from tests.users import stage_file

MINE = stage_file(
    """
    ctx.report("history", [{"epoch": i, "loss": 1 / (1 + i)} for i in range(3)])
    module = copy.deepcopy(model.module)
    module.head.weight.data += torch.randn(module.head.weight.shape)
    server = FOLDER / "server"
    if self.seed and server.exists():  # the group of processes of a server to stop, in the middle of a run
        os.killpg(int(server.read_text()), signal.SIGKILL)
    return replace(model, module=module)
    """,
    "seed: int = 0",
)
OF_RUN = "from runs join tags on tags.run_uuid = runs.run_uuid where key = 'shrink_uid' and (value = ? or value like ?)"
DATA = (
    "select d.name, d.digest, t.value from datasets d join inputs i on i.source_id = d.dataset_uuid "
    "join input_tags t on t.input_uuid = i.input_uuid"
)


class Database:
    """Where MLflow keeps things, and what it has of a run."""

    def __init__(self, uri: str, db: Path, artifacts: Path) -> None:
        self.uri, self.db, self.artifacts = uri, db, artifacts

    def rows(self, query: str, *given: Any) -> list[Any]:
        with sqlite3.connect(self.db) as connection:
            return connection.execute(query, given).fetchall()

    def statuses(self, run: str) -> list[str]:
        """Of the parent and its children, in the order of their uids."""
        return [status for (status,) in self.rows(f"select status {OF_RUN} order by tags.value", run, f"{run}/%")]

    def state(self, run: str, *, without: tuple[str, ...] = ()) -> Any:
        """Everything of a run with ids replaced by names; times, where they are those of the record, are left in.

        Args:
            run: its name.
            without: metrics and artifacts to leave out, for two runs that ran at two times.
        """
        query = f"select runs.run_uuid, tags.value, name, status, lifecycle_stage, start_time {OF_RUN}"
        query += " order by tags.value"
        runs = self.rows(query, run, f"{run}/%")
        ids = {run_id: f"RUN{uid.removeprefix(run)}" for run_id, uid, *_ in runs}
        tag = "join logged_model_tags t on t.model_id = m.model_id where t.tag_key = 'shrink_uid' and t.tag_value = ?"
        models = self.rows(
            f"select m.model_id, name, status, source_run_id, lifecycle_stage from logged_models m {tag}", run
        )
        ids |= {model_id: f"MODEL{i}" for i, (model_id, *_) in enumerate(models)}
        found: dict[str, Any] = {"runs": [], "models": []}
        for run_id, *facts in runs:
            found["runs"].append({
                "facts": facts[:-1] if without else facts,
                "params": self.rows("select key, value from params where run_uuid = ? order by 1", run_id),
                "tags": self._tags(run_id, without),
                "latest": self._metrics("latest_metrics", run_id, without),
                "metrics": self._metrics("metrics", run_id, without),
                "data": self.rows(f"{DATA} where i.destination_id = ? order by 1, 2", run_id),
                "outputs": self.rows("select destination_id, step from inputs where source_id = ?", run_id),
                "artifacts": self._files(run_id, without),
            })  # fmt: skip
        for model_id, *facts in models:
            tags = self.rows("select tag_key, tag_value from logged_model_tags where model_id = ? order by 1", model_id)
            # MLflow itself notes here which versions there are, with their numbers, which count over all runs.
            tags = [(key, value) for key, value in tags if key != "mlflow.modelVersions"]
            found["models"].append({"facts": facts, "tags": tags, "artifacts": self._files(model_id, without)})
        found["versions"] = self.rows(
            "select v.name, source, storage_location, run_id, status, key, value from model_versions v "
            "join model_version_tags t on t.name = v.name and t.version = v.version where run_id = ?",
            runs[0][0] if runs else "",
        )
        text = json.dumps(found)
        for one, name in (*ids.items(), (run, "RUN"), (short_name(run), "RUN")):
            text = text.replace(one, name)
        return json.loads(text)

    def _metrics(self, table: str, run_id: str, without: tuple[str, ...]) -> list[Any]:
        rows = self.rows(
            f"select key, value, step, is_nan, timestamp from {table} where run_uuid = ? order by 1, 3, 5, 2", run_id
        )
        return [row[:-1] if without else row for row in rows if row[0] not in without]

    def _tags(self, run_id: str, without: tuple[str, ...]) -> list[Any]:
        rows = self.rows("select key, value from tags where run_uuid = ? order by 1", run_id)
        return [row for row in rows if row[0] != NOTE or "summary.md" not in without]  # which is what the note is

    def _files(self, owner: str, without: tuple[str, ...]) -> list[tuple[str, int]]:
        (folder,) = [*self.artifacts.rglob(owner), None][:1]
        files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder else []
        return [(str(f.relative_to(folder)), f.stat().st_size) for f in files if folder and f.name not in without]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Server(Database):
    """`mlflow server` with a database and an artifact folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        super().__init__(f"http://127.0.0.1:{self.port}", folder / "db", folder / "artifacts")
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = f"{sys.executable} -m mlflow server --host 127.0.0.1 --port {self.port} --workers 1".split()
        stores = ["--backend-store-uri", f"sqlite:///{self.db}", "--artifacts-destination", str(self.artifacts)]
        log = self.log.open("ab")
        self.process = subprocess.Popen([*command, *stores], stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        pytest.fail(f"mlflow server did not start: {self.log.read_text()}")

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process:
            self.process.wait()
