"""The projection to MLflow through outages: a real server behind a proxy that fails at every request in turn.

What MLflow has is compared as it lies in its database and its artifact folder, so nothing can hide behind an API.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pytest
from mlflow import MlflowClient

from pipeline.cli.gate import judge_run
from pipeline.errors import TrackingError
from pipeline.records.record import Failure, Record
from pipeline.report.mlflow import connection as tracking
from pipeline.report.mlflow.run import open_tracking
from pipeline.runner import resume, run, sync_run
from tests.aliases import Make, Patch
from tests.forked import shrink, start
from tests.tracked import MINE, Database, Server, free_port
from tests.users import MINE_ALONE

ROOT = Path(__file__).parents[4]

PAGES = ("summary.md", "report.html")  # they name the run, whose folder is another
LONGER = MINE_ALONE + "  - {use: mine.py, seed: 1}\n  - {use: export.onnx}\n"


def test_a_run_is_logged_whole_by_sync_and_only_once(another: Make, local: Database) -> None:
    folder = another()
    assert sync_run(folder)
    found = local.state(folder.name)
    parent, baseline, stage = found["runs"]
    assert [r["facts"][1:3] for r in found["runs"]] == [
        ["RUN", "FINISHED"],
        ["baseline", "FINISHED"],
        ["0-mine.py", "FINISHED"],
    ]
    assert [point[1:3] for point in stage["metrics"] if point[0] == "history.loss"] == [[1.0, 0], [0.5, 1], [1 / 3, 2]]
    assert [point[2] for point in parent["metrics"] if point[0] == "score"] == [0, 1]
    assert {"record.json", "config.yaml"} <= {Path(path).name for path, _ in parent["artifacts"]}
    assert {"deployed.onnx", "weights.safetensors"} <= {Path(path).name for path, _ in baseline["artifacts"]}
    assert parent["outputs"] == [["MODEL0", 1]]
    assert len(found["models"]) == len(found["versions"]) == 1
    assert not sync_run(folder)
    (folder / "tracking.json").unlink()  # as if it was killed just before it had written that it was done
    assert sync_run(folder)
    assert local.state(folder.name) == found


def test_a_run_that_is_judged_otherwise_is_logged_again(
    another: Make, local: Database, said: list[str], tmp_path: Path
) -> None:
    folder, file = another(), tmp_path / "limits.yaml"
    assert sync_run(folder)
    for limits, verdict in (("{params: {max: 1}}", "fail"), ("{size: {max: 1 MB}}", "pass")):
        file.write_text(limits)
        judge_run(folder, file)
        assert said.pop() == f"MLflow has the verdict of before; to log this one: shrink sync {folder}"
        assert sync_run(folder)
        tags = dict(local.state(folder.name)["runs"][0]["tags"])
        assert tags["verdict"] == verdict
    assert (tags["gate.params"], tags["gate.size_bytes"][:5]) == ("no limit any more", "pass:")
    judge_run(folder, file)  # as before
    assert not sync_run(folder)


@pytest.mark.parametrize("content", ["", '{"synced": false}\n'], ids=["torn", "not synced"])
def test_what_an_earlier_process_left_is_no_reason_to_log_twice(another: Make, local: Database, content: str) -> None:
    folder, undisturbed = another(), another()
    (folder / "tracking.json").write_text(content)
    (folder / "tracking.lock").touch()
    assert sync_run(folder)
    assert sync_run(undisturbed)
    assert local.state(folder.name) == local.state(undisturbed.name)


FAILED = Failure(where="", message="no luck", exit_code=3)


@pytest.mark.parametrize(("failure", "expected"), [
    (FAILED, "FAILED"), (FAILED.model_copy(update={"exit_code": 130}), "KILLED"), (None, "KILLED"),
], ids=["failed", "interrupted", "killed"])  # fmt: skip
def test_an_unfinished_run_is_synced(another: Make, local: Database, failure: Failure | None, expected: str) -> None:
    folder = another(ended=False, failure=failure, stages=[])
    assert sync_run(folder)
    assert local.statuses(folder.name) == [expected, "FINISHED"]
    found = local.state(folder.name)
    assert not found["models"]
    assert not found["versions"]
    assert not sync_run(folder)


def test_a_run_in_which_nothing_was_measured_is_synced_too(another: Make, local: Database) -> None:
    folder = another(ended=False, baseline=None, stages=[])
    assert sync_run(folder)
    assert local.statuses(folder.name) == ["KILLED"]


def test_children_that_a_dead_process_left_running_are_closed(another: Make, local: Database) -> None:
    folder = another(ended=False)
    record = Record.load(folder)
    with open_tracking(record, folder.parent) as opened:
        opened.update(record)
    client = MlflowClient(local.uri)
    (child,) = local.rows("select run_uuid from tags where key = 'shrink_uid' and value = ?", f"{record.run}/1")
    client.update_run(child[0], status="RUNNING")
    resumed = record.model_copy(update={"stages": []})  # which has not come to this stage yet
    with open_tracking(resumed, folder.parent) as opened:
        assert local.statuses(record.run) == ["RUNNING", "FINISHED", "KILLED"]
        opened.update(record)
    assert local.statuses(record.run) == ["FINISHED", "FINISHED", "FINISHED"]


def test_a_result_that_was_lost_and_made_again_is_logged_again(another: Make, local: Database) -> None:
    folder = another()
    assert sync_run(folder)
    record = Record.load(folder)
    record.stages[0] = record.stages[0].model_copy(update={"finished": "2030-01-01T00:00:00+00:00", "score": 0.125})
    record.save()
    (folder / "tracking.json").unlink()
    assert sync_run(folder)
    *_, stage = local.state(folder.name)["runs"]
    assert [point[1] for point in stage["latest"] if point[0] == "score"] == [0.125]
    assert local.statuses(folder.name) == ["FINISHED"] * 3


def test_the_figures_of_all_that_is_new_go_to_the_parent_in_one_call(
    another: Make, local: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, real = list[tuple[str, set[int]]](), MlflowClient.log_batch

    def counted(self: MlflowClient, run: str, metrics: Any, *args: Any) -> Any:
        batches.append((run, {metric.step for metric in metrics}))
        return real(self, run, metrics, *args)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    folder = another()
    assert sync_run(folder)
    ((parent,),) = local.rows("select run_uuid from tags where key = 'shrink_uid' and value = ?", folder.name)
    assert [steps for run, steps in batches if run == parent and steps] == [{0, 1}]


def test_a_name_with_a_quote_is_logged(another: Make, local: Database) -> None:
    folder = another()
    record = Record.load(folder).model_copy(update={"run": f"it's {folder.name}"})
    record.save()
    assert sync_run(folder)
    assert local.statuses(record.run) == ["FINISHED"] * 3


def test_a_run_that_another_process_has_is_left_to_it(another: Make, local: Database, said: list[str]) -> None:
    folder = another()
    with open_tracking(Record.load(folder), folder.parent):
        assert not sync_run(folder)
        assert local.statuses(folder.name) == ["RUNNING"]
    assert said == [f"{folder.name}: another process runs or logs it"]


def test_what_ends_a_run_at_once_leaves_the_rest_to_sync(another: Make, local: Database) -> None:
    folder = another(ended=False)
    record = Record.load(folder)
    with pytest.raises(KeyboardInterrupt), open_tracking(record, folder.parent):
        raise KeyboardInterrupt  # nothing of the record is logged yet
    assert local.statuses(folder.name) == ["KILLED"]
    assert sync_run(folder)
    assert local.statuses(folder.name) == ["KILLED", "FINISHED", "FINISHED"]


def test_a_passing_failure_is_tried_again(another: Make, local: Database, monkeypatch: Patch, said: list[str]) -> None:
    folder, calls = another(), list[str]()
    real = MlflowClient.log_batch

    def fails_twice(self: MlflowClient, *args: Any) -> Any:
        calls.append("")
        if len(calls) <= 2:
            raise ConnectionError("gone for a moment")
        return real(self, *args)

    monkeypatch.setattr(MlflowClient, "log_batch", fails_twice)
    monkeypatch.setattr(tracking.time, "sleep", lambda seconds: None)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    assert sync_run(folder)
    assert not said
    assert local.statuses(folder.name) == ["FINISHED"] * 3


def test_the_settings_of_mlflow_are_left_as_they_were(another: Make, monkeypatch: Patch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    before = dict(os.environ)
    assert sync_run(another())
    assert dict(os.environ) == before


def test_required_tracking_that_is_down_ends_a_run_at_once(project: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TrackingError, match=r"MLflow cannot be reached: .*Look at MLFLOW_TRACKING_URI") as caught:
        run(project(MINE_ALONE, **{"mine.py": MINE}), runs=tmp_path / "runs", require_tracking=True)
    assert caught.value.exit_code == 7
    assert not (tmp_path / "runs" / "store").exists()


# From here on with a server.


class Proxy(ThreadingHTTPServer):
    """In front of a server; what happens to requests is in `how`, from the request with the number `at` on."""

    daemon_threads = True

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.server, self.uri = server, f"http://127.0.0.1:{self.server_port}"
        self.lock, self.over = threading.Lock(), threading.Event()
        self.whole()

    def whole(self) -> None:
        """From now on everything is passed on."""
        self.fails(sys.maxsize, "")

    def fails(self, at: int, how: str) -> None:
        """From now on the count starts anew, and the request `at` is the first that fails."""
        self.count, self.at, self.how, self.victim = 0, at, how, 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


class Handler(BaseHTTPRequestHandler):
    """Passes a request on and its answer back, or does not."""

    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.count += 1
            over = self.server.count - self.server.at
        if over < 0:
            self._answer(*self._forward(content))
        elif self.server.how == "slow":
            time.sleep(3)
            self._answer(*self._forward(content))
        elif self.server.how == "silent":
            self.server.over.wait()
            self.close_connection = True
        elif self.server.how == "refused" or over > 0:
            self._answer(500, {}, b"no")
        else:  # carried out, but nobody is told
            self._forward(content)
            if self.server.how == "killed":
                os.kill(self.server.victim, signal.SIGKILL)
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815  # the names that the base class calls

    def _forward(self, content: bytes) -> tuple[int, dict[str, str], bytes]:
        there = HTTPConnection("127.0.0.1", self.server.server.port, timeout=60)
        there.request(self.command, self.path, content, dict(self.headers))
        answer = there.getresponse()
        found = answer.read()
        there.close()
        return answer.status, {"Content-Type": answer.headers.get("Content-Type", "")}, found

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def proxies(server: Server) -> Iterator[Proxy]:
    made = Proxy(server)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.over.set()
    made.shutdown()
    made.server_close()


@pytest.fixture
def proxy(proxies: Proxy, monkeypatch: Patch) -> Iterator[Proxy]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxies.uri)
    yield proxies
    proxies.whole()


def disturbed(proxy: Proxy, folder: Path, how: str) -> None:
    """Project a run folder until the proxy makes an end of it."""
    if how == "killed":
        with proxy.lock:  # no request passes before it is known whom to kill
            child = start(sync_run, folder)
            proxy.victim = child.pid or 0
        child.join(120)
        assert child.exitcode == -signal.SIGKILL
    else:
        with pytest.raises(TrackingError):
            sync_run(folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("how", "first"), [("refused", 1), ("lost", 2), ("killed", 3)])
def test_an_outage_at_any_request_leaves_nothing_twice_and_nothing_missing(
    another: Make, server: Server, proxy: Proxy, how: str, first: int
) -> None:
    assert sync_run(another())  # the first one of all makes the experiment
    undisturbed = another()
    proxy.whole()
    assert sync_run(undisturbed)
    requests, expected = proxy.count, server.state(undisturbed.name)
    assert [len(expected[kind]) for kind in ("runs", "models", "versions")] == [3, 1, 1]
    count = "select (select count(*) from runs), (select count(*) from logged_models), (select count(*) from inputs), "
    count += "(select count(*) from model_versions)"
    ((*before,),) = server.rows(count)
    # Every second request suffers one kind of outage; with FUZZ=all each suffers every kind.
    tried = range(1, requests + 1) if os.environ.get("FUZZ") == "all" else range(first, requests + 1, 6)
    for n in tried:
        folder = another()
        proxy.fails(n, how)
        disturbed(proxy, folder, how)
        assert json.loads((folder / "tracking.json").read_text()) == {"synced": False}
        proxy.whole()
        assert sync_run(folder)
        assert server.state(folder.name) == expected, f"request {n} was {how}"
        assert not sync_run(folder)
    ((*after,),) = server.rows(count)
    # A run has three inputs, which are splits, and one output.
    assert [b - a for a, b in zip(before, after, strict=True)] == [len(tried) * count for count in (3, 1, 3 + 1, 1)]
    assert requests > 30  # or what is tried here is no whole projection


@pytest.mark.slow
def test_points_that_are_logged_twice_stand_once_in_the_history(server: Server, another: Make, proxy: Proxy) -> None:
    record = Record.load(another())
    for _ in range(2):
        with open_tracking(record, Path(record.folder).parent) as opened:
            opened.done.clear()
            opened.update(record)
            opened.to.log(opened.parent, metrics=tracking.timed([("score", 0.5, 7), ("score", 0.5, 8)], record.started))
    history = MlflowClient(server.uri).get_metric_history(opened.parent, "score")
    assert sorted(point.step for point in history) == [0, 1, 7, 8]


@pytest.mark.slow
def test_a_registered_model_loads_from_the_server_and_predicts(server: Server, another: Make, proxy: Proxy) -> None:
    folder = another(register_as="loads")
    assert sync_run(folder)
    record = Record.load(folder)
    inputs = {"input": np.random.default_rng(0).random((5, 1, 8, 8), dtype=np.float32)}
    (expected,) = onnxruntime.InferenceSession(folder / record.final.file).run(None, inputs)
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(server.uri)
        loaded = mlflow.pyfunc.load_model("models:/loads/1")
    finally:
        mlflow.set_tracking_uri(before)
    np.testing.assert_array_equal(loaded.predict(inputs)["output"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["lost", "silent"])
def test_tracking_that_is_required_and_goes_away_ends_a_finished_run_with_the_command_to_sync(
    project: Make, server: Server, proxy: Proxy, tmp_path: Path, monkeypatch: Patch, how: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    proxy.fails(15, how)
    with pytest.raises(TrackingError, match=r"MLflow went away: .*Later: shrink sync .*\.") as caught:
        run(
            project(MINE_ALONE, **{"mine.py": MINE}), runs=tmp_path / "runs", register="required", require_tracking=True
        )
    assert caught.value.exit_code == 7
    (folder,) = tmp_path.glob("runs/*-chain-*")
    assert caught.value.fix == f"Later: shrink sync {folder}"
    record = Record.load(folder)
    assert (len(record.stages), record.failure) == (1, None)
    proxy.whole()
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    assert sync_run(folder)
    assert server.statuses(record.run) == ["FINISHED"] * 3
    assert len(server.state(record.run)["versions"]) == 1


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("at", [1, 30])
def test_a_server_that_answers_too_late_costs_one_warning_and_not_the_run(
    project: Make, server: Server, proxy: Proxy, tmp_path: Path, monkeypatch: Patch, said: list[str], at: int
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    proxy.fails(at, "slow")
    made = run(project(MINE_ALONE, **{"mine.py": MINE}), runs=tmp_path / "runs")
    assert len(made.stages) == 1
    assert len([text for text in said if "MLflow" in text]) == 1
    assert proxy.count == at  # nothing more is tried
    time.sleep(4)  # what was carried out too late is there now
    proxy.whole()
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    assert sync_run(made.folder)
    assert server.statuses(made.run) == ["FINISHED"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("outage", [30, 44])
def test_a_run_that_was_killed_and_resumed_has_one_model_version(
    project: Make, server: Server, proxy: Proxy, tmp_path: Path, outage: int
) -> None:
    path = project(MINE_ALONE, **{"mine.py": MINE})
    proxy.fails(outage, "killed")
    with proxy.lock:
        started = start(run, path, runs=tmp_path / "runs", register="resumed")
        proxy.victim = started.pid or 0
    started.join(120)
    assert started.exitcode == -signal.SIGKILL
    (folder,) = tmp_path.glob("runs/*-chain-*")
    proxy.whole()
    for _ in range(2):  # resumed once more when it has ended, it changes nothing
        record = resume(folder)
        assert server.statuses(record.run) == ["FINISHED"] * 3
        found = server.state(record.run)
        assert (len(found["models"]), len(found["versions"])) == (1, 1)
        assert len(found["runs"][0]["outputs"]) == 1
        assert [point[2] for point in found["runs"][0]["metrics"] if point[0] == "score"] == [0, 1]
        assert not sync_run(folder)


def command(*words: Any) -> subprocess.CompletedProcess[str]:
    tracking = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    return shrink(*words, cwd=ROOT, COLUMNS="1000", **tracking)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_server_that_is_stopped_during_a_run_costs_one_warning_and_sync_makes_it_good(
    project: Make, tmp_path: Path, monkeypatch: Patch
) -> None:
    server = Server(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    path = project(LONGER, **{"mine.py": MINE})
    try:
        server.start()
        undisturbed = run(path, runs=tmp_path / "runs", register="longer")
        (path.parent / "server").write_text(str(server.process.pid))
        done = command("run", path, "--runs", tmp_path / "others", "--register", "longer")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("MLflow tracking stopped") == 1
        assert server.process.wait(10) == -signal.SIGKILL
        (folder,) = tmp_path.glob("others/*-chain-*")
        assert json.loads((folder / "tracking.json").read_text()) == {"synced": False}
        with pytest.raises(TrackingError, match="MLflow cannot be reached"):
            sync_run(folder)
        server.start()
        done = command("sync", "--runs", tmp_path / "others")
        assert (done.returncode, done.stdout) == (0, f"{folder.name}: logged\n")
        assert not sync_run(folder)
        found, expected = (
            server.state(name, without=("seconds", "record.json", *PAGES)) for name in (folder.name, undisturbed.run)
        )
        assert len(expected["runs"]) == 5
        assert found == expected
    finally:
        server.stop()


@pytest.mark.slow
def test_runs_are_synced_at_once_but_one_that_was(another: Make, server: Server, proxy: Proxy, tmp_path: Path) -> None:
    copies = [shutil.move(another(), tmp_path / f"run-{i}") for i in range(2)]
    for copy in copies:
        Record.load(copy).model_copy(update={"run": f"{tmp_path.name}-{copy.name}"}).save()
    assert sync_run(copies[0])
    done = command("sync", "--runs", tmp_path)
    assert (done.returncode, done.stdout) == (0, "run-0: nothing to do\nrun-1: logged\n")
    assert server.statuses(f"{tmp_path.name}-run-1") == ["FINISHED"] * 3
