"""The default database is there whole or not at all, and lies in the folder of runs whatever that is called."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow.store.db.utils  # noqa: F401  # so that tests/kept.py has its tables
import pytest

from pipeline.report.mlflow.connection import Connection
from tests.forked import die, exit_code


def opened(runs: Path) -> Connection:
    connection = Connection(runs, "shrink sync")
    connection.tolerant(connection.open)
    return connection


def experiments(runs: Path) -> list[str]:
    with closing(sqlite3.connect(runs / "mlflow.db")) as database:
        return [name for (name,) in database.execute("select name from experiments order by 1")]


NAMES = ["a?b", "a%3Fb", "a%20b", "a%b", "a#b", "a b", "it's", 'a"b', "[x]", "a@b:c"]


def test_the_database_lies_in_the_folder_of_runs_whatever_that_is_called(tmp_path: Path) -> None:
    for name in NAMES:
        connection = opened(tmp_path / name / "runs")
        assert not connection.problem, name
        run = connection.run("uid", "name", "2026-01-01T00:00:00+00:00", {}).info.run_id
        connection.client.log_artifact(run, __file__)
        assert experiments(tmp_path / name / "runs") == ["Default", "shrinkline"]
        assert len([*(tmp_path / name / "runs" / "mlartifacts").rglob(Path(__file__).name)]) == 1, name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)


def open_and_die(runs: Path) -> None:
    from mlflow.store.db import utils

    utils._upgrade_db = die
    utils._initialize_tables = lambda engine: (utils.InitialBase.metadata.create_all(engine), utils._upgrade_db(engine))
    opened(runs)


def test_killed_while_it_is_made_it_is_made_by_the_next_one(tmp_path: Path) -> None:
    assert exit_code(open_and_die, tmp_path) == -9
    assert not (tmp_path / "mlflow.db").exists()
    assert not opened(tmp_path).problem
    assert experiments(tmp_path) == ["Default", "shrinkline"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.lock"]


@pytest.mark.parametrize("statement", ["", "create table experiments (name text)", "create table runs (name text)"])
def test_one_that_was_left_half_made_is_made_anew_with_a_warning(
    tmp_path: Path, said: list[str], statement: str
) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute(statement)
        database.commit()
    (tmp_path / "mlflow.db-journal").write_bytes(os.urandom(512))
    (tmp_path / ".mlflow.db.tmp").write_bytes(b"of one that was killed")
    assert not opened(tmp_path).problem
    assert said == [f"{tmp_path / 'mlflow.db'} was left before it was whole, and holds nothing: it is made anew"]
    assert experiments(tmp_path) == ["Default", "shrinkline"]
    assert not opened(tmp_path).problem
    assert len(said) == 1


def test_what_is_no_database_is_left_as_it_is(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"something else" * 100)
    assert "not a database" in opened(tmp_path).problem
    assert (tmp_path / "mlflow.db").read_bytes() == b"something else" * 100
