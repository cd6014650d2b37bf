"""What keeps MLflow from taking a run is told as what it is, with what mends it; any name of a file is tracked."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import TrackingError
from pipeline.report.mlflow.connection import Connection


@pytest.mark.slow
def test_a_deleted_experiment_is_told_and_the_command_restores_it(tmp_path: Path) -> None:
    connection = Connection(tmp_path, "shrink sync")
    connection.open()
    connection.client.delete_experiment(connection.experiment)
    with pytest.raises(TrackingError, match=r"the experiment `shrinkline` was deleted") as caught:
        Connection(tmp_path, "shrink sync").open()
    variable, _, command = caught.value.fix.partition("restore it: ")[2].partition(" ")
    name, _, value = variable.partition("=")
    code = f"import os; os.environ[{name!r}] = {value!r}; from mlflow.cli import cli; cli({command.split()[1:]!r})"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    Connection(tmp_path, "shrink sync").open()


def test_a_uid_with_quotes_of_both_kinds_is_made_once(tmp_path: Path) -> None:
    connection = Connection(tmp_path, "shrink sync")
    connection.open()
    runs = {connection.run('it\'s "x"', "name", "2026-01-01T00:00:00+00:00", {}).info.run_id for _ in range(2)}
    assert len(runs) == 1


def test_a_driver_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql+pymysql://user:secret@localhost/db")
    with pytest.raises(TrackingError, match="needs the module `pymysql`, and that is not installed") as caught:
        Connection(tmp_path, "shrink sync").open()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("uri", "server"), [
    ("localhost:5000", "localhost:5000"), ("htp://host/x", "host/x"), ("sqlight:///x.db", "x.db"),
])  # fmt: skip
def test_an_address_of_an_unknown_kind_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, server: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    message = (
        f"MLFLOW_TRACKING_URI is {uri}, an address of no kind that MLflow knows. Write http://{server} for a server"
    )
    with pytest.raises(TrackingError, match=re.escape(message)):
        Connection(tmp_path, "shrink sync").open()
