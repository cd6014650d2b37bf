"""Ctrl-C and SIGTERM: the first stops where the run can go on, the second at once; what was begun ends the same."""

import io
import logging
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from pipeline.base.signals import SIGNALS, Interrupts
from pipeline.errors import Interruption, StageError
from pipeline.records import journal
from pipeline.records.record import Record
from pipeline.report.mlflow.pages import short_name
from pipeline.runner import resume, run
from tests.forked import PATIENCE, Shrink
from tests.users import chain_of, digests, only_run, stage_file

Make = Callable[..., Path]

ROOT = Path(__file__).parents[3]
FORK = multiprocessing.get_context("fork")

DATA = """
import time
from pathlib import Path
import torch
from torch.utils.data import TensorDataset
from pipeline.task import Split, classification, cross_entropy

FOLDER = Path(__file__).parent

def quadrants(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, 1, 8, 8, generator=generator), torch.arange(count) % 4)

def loss(outputs, targets):
    '''Slow as long as the test wants it, once the training has begun; before it the loss is tried out.'''
    if (FOLDER / "slow").exists() and list(FOLDER.glob("runs/store/work/*/training/checkpoint-*")):
        (FOLDER / "reached").touch()
        time.sleep(float((FOLDER / "slow").read_text()))
    return cross_entropy(outputs, targets)

def task():
    made = classification(Split(quadrants(128, 0)), Split(quadrants(32, 1)), Split(quadrants(64, 2)))
    return type(made)(made.train, made.validation, made.test, loss=loss, score=made.score)
"""

SLOW = "train.supervised, epochs: 3, batch_size: 32, learning_rate: 0.01"
TRAINED = chain_of(SLOW, "mine.py", model="use: models.py:TinyNet, width: 4")


@pytest.fixture
def folder(project: Make) -> Path:
    """A user's folder: a training whose steps take as long as the file `slow` says, and a stage that does nothing."""
    return write(project, "pass")


def write(project: Make, body: str, chain: str = TRAINED) -> Path:
    return project(chain, **{"data.py": DATA, "mine.py": stage_file(f"{dedent(body)}\nreturn model")}).parent


@pytest.fixture
def start(folder: Path) -> Callable[..., Shrink]:
    """start(slow): a run whose training has reached a step; each takes `slow` seconds."""

    def make(slow: float) -> Shrink:
        (folder / "slow").write_text(str(slow))
        child = Shrink(folder, "run", str(folder / "chain.yaml"), "--runs", str(folder / "runs"))
        child.until((folder / "reached").exists)
        return child

    return make


def histories(record: Record) -> list[Any]:
    return [stage.reports for stage in record.stages]


def events(folder: Path) -> list[str]:
    return [f"{line['event']} {line.get('place', '')}".strip() for line in journal.read(folder / "journal.jsonl")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_stops_after_the_step_and_the_printed_command_finishes(
    start: Callable[..., Shrink], folder: Path, whole: Record, number: signal.Signals, code: int
) -> None:
    child = start(0.3)
    child.send(number)
    ended = child.end()
    assert ended.code == code
    assert "Traceback" not in ended.err
    (message,) = [line for line in ended.err.splitlines() if line.startswith("shrink: ")]
    assert re.search(r"stages\[0\] \(train.supervised\): stopped in epoch \d after step \d", message)
    stopped = only_run(folder)
    record = Record.load(stopped)
    assert (record.failure.exit_code, record.stages, record.verdict) == (code, [], None)
    assert events(stopped)[-1] == "stopped"

    (folder / "slow").unlink()
    command = re.search(r"`shrink (resume .+)` goes on", message)
    again = Shrink(folder, *shlex.split(command[1])).end()
    assert again.code == 0
    assert "training goes on at epoch" in (stopped / "run.log").read_text()
    finished = Record.load(stopped)
    assert finished.failure is None
    assert digests(finished) == digests(whole)
    assert histories(finished) == histories(whole)


@pytest.mark.parametrize(
    ("first", "second", "codes"),
    [
        (signal.SIGINT, signal.SIGINT, {130}),
        (signal.SIGTERM, signal.SIGTERM, {143, -signal.SIGTERM}),
        (signal.SIGTERM, signal.SIGINT, {130}),
    ],
)
def test_the_second_signal_stops_at_once(
    start: Callable[..., Shrink], folder: Path, whole: Record, first: int, second: int, codes: set[int]
) -> None:
    child = start(10 * PATIENCE)
    child.send(first)
    child.until(lambda: "once more stops at once" in child.err.read_text())
    child.send(second)
    ended = child.end()
    assert ended.code in codes
    assert "Traceback" not in ended.err
    assert "a bug of ours" not in ended.err
    (folder / "slow").unlink()
    assert digests(resume(only_run(folder), track=False)) == digests(whole)


REACH = '(FOLDER / "reached").touch(); '


def test_between_stages_the_one_that_runs_is_kept_and_the_next_does_not_begin(project: Make) -> None:
    chain = "task: {use: data.py}\nmodel: {use: models.py:TinyNet}\nstages: [{use: mine.py}, {use: export.onnx}]\n"
    folder = write(project, REACH + "time.sleep(1)", chain)
    child = Shrink(folder, "run", str(folder / "chain.yaml"), "--runs", str(folder / "runs"))
    child.until((folder / "reached").exists)
    child.send(signal.SIGINT)
    ended = child.end()
    assert ended.code == 130
    assert "stopped by SIGINT" in ended.err
    stopped = only_run(folder)
    assert "made stages[0] (mine.py)" in events(stopped)
    assert not any(event.startswith("begin stages[1]") for event in events(stopped))
    (folder / "reached").unlink()
    record = resume(stopped, track=False)
    assert [stage.name for stage in record.stages] == ["mine.py", "export.onnx"]
    assert not (folder / "reached").exists()  # its result was kept


def test_a_stage_whose_own_process_the_signal_ended_was_stopped_and_has_not_failed(project: Make) -> None:
    # A terminal sends Ctrl-C to the whole group.
    body = REACH + f"subprocess.run([sys.executable, '-c', 'import time; time.sleep({10 * PATIENCE})'], check=True)"
    folder = write(project, body, TRAINED.replace("  - {use: train.supervised", "#"))
    child = Shrink(folder, "run", str(folder / "chain.yaml"), "--runs", str(folder / "runs"))
    child.until((folder / "reached").exists)
    time.sleep(0.5)  # for its process to start; where it has not, the test waits for nothing and shows less
    child.send(signal.SIGINT, group=True)
    ended = child.end()
    assert ended.code == 130
    assert events(only_run(folder))[-1] == "stopped"


def test_a_killed_stage_is_given_its_folder_again(project: Make) -> None:
    body = """
        notes = ctx.directory / "notes.txt"
        seen = notes.read_text() if notes.exists() else ""
        notes.write_text(seen + "x")
        if len(seen) < 2:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        ctx.report("seen", seen)
    """
    folder = write(project, body, TRAINED.replace("  - {use: train.supervised", "#"))
    assert Shrink(folder, "run", str(folder / "chain.yaml"), "--runs", str(folder / "runs")).end().code == -9
    assert Shrink(folder, "resume", str(only_run(folder))).end().code == -9
    (stage,) = resume(only_run(folder), track=False).stages
    assert stage.reports == {"seen": "xx"}
    assert not list((folder / "runs" / "store" / "work").iterdir())


def test_a_failure_that_no_signal_caused_stays_a_failure(project: Make) -> None:
    folder = write(project, "raise ValueError('no luck')", TRAINED.replace("  - {use: train.supervised", "#"))
    with pytest.raises(StageError, match="no luck"):
        run(folder / "chain.yaml", runs=folder / "runs", track=False)
    assert events(only_run(folder))[-1] == "failed"


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("body", ["pass", "raise ValueError", "raise KeyboardInterrupt"])
def test_handlers_are_put_back_however_a_run_ends(project: Make, body: str) -> None:
    before = handlers()
    body = f"ctx.report('caught', str(__import__('signal').getsignal(2))); {body}"
    folder = write(project, body, TRAINED.replace("  - {use: train.supervised", "#"))
    with nullcontext() if body.endswith("pass") else pytest.raises((StageError, KeyboardInterrupt)):
        (stage,) = run(folder / "chain.yaml", runs=folder / "runs", track=False).stages
        assert "Interrupts._catch" in str(stage.reports["caught"])
    assert handlers() == before


def test_a_run_in_another_thread_catches_nothing_and_works(project: Make) -> None:
    folder = write(project, "pass", TRAINED.replace("  - {use: train.supervised", "#"))
    before, found = handlers(), list[Record]()
    thread = threading.Thread(
        target=lambda: found.append(run(folder / "chain.yaml", runs=folder / "runs", track=False))
    )
    thread.start()
    thread.join()
    assert len(found[0].stages) == 1
    assert handlers() == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_caught_once_and_asks_to_stop(number: signal.Signals) -> None:
    before = handlers()
    with Interrupts() as interrupts:
        interrupts.check()
        assert not interrupts.requested()
        os.kill(os.getpid(), number)
        assert interrupts.requested()
        assert interrupts.exit_code == 128 + number
        assert handlers() == before
        with pytest.raises(Interruption, match=f"stopped by {number.name}"):
            interrupts.check()


class Interrupted(io.RawIOBase):
    """A terminal that Ctrl-C reaches in the middle of the first write."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        first, self.written = not self.written, self.written + bytes(data)
        if first:
            signal.raise_signal(signal.SIGINT)
        return len(data)


def test_a_signal_in_the_middle_of_a_line_is_told_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, threads = Interrupted(), set(threading.enumerate())
    handler = logging.StreamHandler(io.TextIOWrapper(io.BufferedWriter(terminal)))
    monkeypatch.setattr(logging.getLogger("shrinkline"), "handlers", [handler])
    with Interrupts() as interrupts:
        logging.getLogger("shrinkline").warning("a line")
        assert interrupts.requested()
        for thread in set(threading.enumerate()) - threads:
            thread.join(PATIENCE)
    assert terminal.written.decode().splitlines() == [
        "a line",
        "SIGINT: the current step is finished first; once more stops at once",
    ]


def test_a_child_of_a_run_can_be_terminated_and_leaves_ctrl_c_to_its_parent() -> None:
    ready = FORK.Event()

    def wait() -> None:  # no more than that: it is a fork of this process, for it is to inherit the handlers
        ready.set()
        time.sleep(10 * PATIENCE)

    with Interrupts() as interrupts:
        child = FORK.Process(target=wait)
        child.start()
        ready.wait()
        os.kill(child.pid, signal.SIGINT)
        child.join(0.3)
        assert child.is_alive()
        child.terminate()
        child.join(PATIENCE)
        assert child.exitcode == -signal.SIGTERM
        assert not interrupts.requested()


@pytest.mark.slow
def test_a_real_process_is_killed_in_mlflow_until_its_run_is_resumed(
    folder: Path, whole: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow's own setter leaves it behind
    (folder / "slow").write_text("0.5")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", "chain.yaml"],
        cwd=folder, env={**environment, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while not (folder / "reached").exists():
        assert command.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=PATIENCE)
    assert (command.returncode, out) == (130, ""), err
    assert "Traceback" not in err
    stopped = only_run(folder)
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")

    def status() -> list[str]:
        (experiment,) = client.search_experiments(filter_string="name = 'shrinkline'")
        runs = client.search_runs([experiment.experiment_id])
        return [str(found.info.status) for found in runs if found.info.run_name == short_name(stopped.name)]

    assert status() == ["KILLED"]
    (folder / "slow").unlink()
    resumed = resume(stopped)
    assert status() == ["FINISHED"]
    assert digests(resumed) == digests(whole)
