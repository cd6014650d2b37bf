"""Tracking in a process of its own: MLflow has what it has otherwise, and whatever dies, the rest comes to its end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pipeline.errors import StageError, TrackingError
from pipeline.records.record import Failure, Record
from pipeline.report.mlflow.following import Follower, following
from pipeline.report.mlflow.run import open_tracking
from pipeline.report.mlflow.sync import _deployed, graph_of
from pipeline.runner import sync_run
from tests.forked import PATIENCE, die, start
from tests.tracked import Database
from tests.users import MINE_ALONE, only_run, stage_file

Make = Callable[..., Any]

ROOT = Path(__file__).parents[4]


@contextmanager
def other_process() -> Iterator[Any]:
    """What opens tracking in another process, as where this one has not imported MLflow."""
    before = {name: sys.modules.pop(name) for name in ("mlflow",) if name in sys.modules}
    with following() as opened:
        sys.modules.update(before)
        assert opened
        yield opened


def track(tracking: Any, record: Record) -> None:
    """What a run does."""
    tracking.update(record)
    assert record.final
    tracking.finish(record, graph_of(_deployed(Path(record.folder), record.final)))


def test_mlflow_has_what_it_has_of_a_run_that_logs_itself_and_torch_is_not_loaded(
    another: Make, local: Database
) -> None:
    one, two = Record.load(another()), Record.load(another())
    with open_tracking(one, Path(one.folder).parent, False) as tracking:
        track(tracking, one)
    with other_process() as opening, opening(two, Path(two.folder).parent, True) as tracking:
        track(tracking, two)
        assert isinstance(tracking, Follower)
        libraries = Path(f"/proc/{tracking.process.pid}/maps").read_text()
    assert local.state(one.run) == local.state(two.run)
    assert local.state(two.run)["versions"]
    assert "onnxruntime" in libraries
    assert "libtorch" not in libraries
    assert not sync_run(Path(two.folder))


def test_a_run_that_failed_is_failed(another: Make, local: Database) -> None:
    record = Record.load(another(ended=False, stages=[]))
    record.failure = Failure(where="", message="no luck", exit_code=3)
    record.save()
    with pytest.raises(StageError), other_process() as opening, opening(record, Path(record.folder).parent):
        raise StageError("no luck")
    assert local.statuses(record.run) == ["FAILED"]


def test_a_server_that_is_down_costs_one_warning_unless_it_is_required(
    another: Make, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    record = Record.load(another())
    with other_process() as opening, opening(record, Path(record.folder).parent) as tracking:
        track(tracking, record)
    (warning,) = said
    assert warning.startswith("MLflow tracking stopped: ")
    assert warning.endswith(f"; the run folder has everything; later: shrink sync {record.folder}")
    assert json.loads((Path(record.folder) / "tracking.json").read_text()) == {"synced": False}
    with other_process() as opening, pytest.raises(TrackingError, match="MLflow cannot be reached: ") as raised:
        opening(record, Path(record.folder).parent, True).__enter__()
    assert raised.value.exit_code == 7


@pytest.mark.parametrize("require", [False, True])
def test_a_process_that_is_killed_costs_one_warning_and_sync_logs_the_rest(
    another: Make, local: Database, said: list[str], require: bool
) -> None:
    folder = another()
    record = Record.load(folder)
    (folder / "tracking.json").write_text('{"synced": true}\n')  # of a run that failed, and now goes on
    with other_process() as opening:
        tracked = opening(record, folder.parent, require)
        tracking = tracked.__enter__()
        tracking.process.kill()
        tracking.process.wait()
        track(tracking, record)
        if require:
            with pytest.raises(TrackingError, match="MLflow went away: its process was killed by SIGKILL"):
                tracked.__exit__(None, None, None)
        else:
            tracked.__exit__(None, None, None)
    text = "MLflow tracking stopped: its process was killed by SIGKILL; the run folder has everything; later: "
    assert said == [f"{text}shrink sync {folder}"]
    assert sync_run(folder)
    assert set(local.statuses(record.run)) == {"FINISHED"}


def killed(folder: Path) -> None:
    """A run that is killed when the baseline has been logged."""
    record = Record.load(folder)
    with other_process() as opening, opening(record, folder.parent, True) as tracking:
        tracking.update(record)
        die()


def test_a_run_that_is_killed_is_ended_by_the_other_process_and_can_go_on(another: Make, local: Database) -> None:
    folder = another(ended=False)
    start(killed, folder).join(PATIENCE)
    until(lambda: local.statuses(folder.name)[:1] == ["KILLED"])
    assert local.statuses(folder.name)[1:] == ["FINISHED", "FINISHED"]
    assert sync_run(folder)  # for not all of it may be there


def until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def command(project: Make, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """command(*words): `shrink run` of a chain with one slow stage, in an interpreter and a group of its own."""

    def make(*words: str) -> subprocess.Popen[str]:
        body = 'print("reached", flush=True)\ntime.sleep(600 if self.slow else 0)\nreturn model'
        chain = project(MINE_ALONE, **{"mine.py": stage_file(body, "slow: bool = True")})
        line = [sys.executable, "-m", "pipeline", "run", str(chain), "--runs", str(tmp_path / "runs"), *words]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(line, cwd=ROOT, start_new_session=True, **pipes)

    return make


@pytest.mark.slow
def test_ctrl_c_is_for_the_run_to_answer_and_the_status_is_killed(command: Make, tmp_path: Path) -> None:
    process = command()
    while "reached" not in process.stderr.readline():  # a user's file may print; standard output is data
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)  # the first waits for the end of the step
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "MLflow" not in err
    assert "Traceback" not in err
    runs = tmp_path / "runs"
    database = Database("", runs / "mlflow.db", runs / "mlartifacts")
    assert database.statuses(only_run(runs).name) == ["KILLED", "FINISHED"]


def test_tracking_that_is_required_and_down_ends_with_7(command: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    process = command("--require-tracking", "--json")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 7, err
    assert "shrink: MLflow cannot be reached: " in err
    assert "reached\n" not in err
    assert "Traceback" not in err + out


def test_a_process_for_nothing_goes_at_once() -> None:
    with other_process() as opening:
        process = opening.__self__.process
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("wanted", [False, True])
def test_where_mlflow_is_imported_or_nothing_is_logged_there_is_no_process(wanted: bool) -> None:
    imported = patch.dict(sys.modules, {"mlflow": pytest} if wanted else {})
    with imported, patch("pipeline.report.mlflow.following._started") as started, following(wanted) as opening:
        assert opening is None
    started.assert_not_called()
