"""Runs over two processes: same results, and whatever ends one of them ends all, with one clear message."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from pipeline import runner
from pipeline.base.world import World
from pipeline.build.build import build_chain
from pipeline.build.config import StageConfig
from pipeline.cli import app
from pipeline.errors import ConfigError
from pipeline.records import journal
from pipeline.records.record import Record
from pipeline.run.distributed import launch, worker
from pipeline.run.distributed.launch import Processes, check_division, how_many
from tests.aliases import Make
from tests.forked import PATIENCE, Ended, Shrink
from tests.users import chain_of, digests, only_run

FORK = multiprocessing.get_context("fork")

DATA = """
import os, signal, time
from pathlib import Path
import torch
from torch.utils.data import TensorDataset
from pipeline.task import Split, classification, cross_entropy

FOLDER, CALLS = Path(__file__).parent, []

def quadrants(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, 1, 8, 8, generator=generator), torch.arange(count) % 4)

def loss(outputs, targets):
    '''After some steps of a training it does what the test has asked of this rank.'''
    if list(FOLDER.glob("runs/store/work/*/training/checkpoint-*")):
        CALLS.append(1)
        asked = FOLDER / f"asked-{os.environ.get('RANK')}"
        if len(CALLS) > 6 and asked.exists():
            (FOLDER / "reached").touch()
            exec(asked.read_text())
    return cross_entropy(outputs, targets)

def task():
    shift = int((FOLDER / "other").exists() and os.environ.get("RANK", "0") != "0")
    made = classification(Split(quadrants(128, shift)), Split(quadrants(32, 7)), Split(quadrants(64, 8)))
    return type(made)(made.train, made.validation, made.test, loss=loss, score=made.score, logits=True)
"""

CHAIN = chain_of(
    "distill.logits, student: {use: models.py:flat}, epochs: 2, batch_size: 32, learning_rate: 0.01",
    baseline="train.supervised, epochs: 3, batch_size: 32, learning_rate: 0.05, optimizer: sgd",
)


class Worker:
    """What `subprocess.Popen` is for a worker, without the imports: a process that has waited for its variables.

    It is a fork of its command's process before that one has begun, which no thread disturbs yet.
    """

    def __init__(self) -> None:
        self.read, write = os.pipe()
        self.process = FORK.Process(target=self._main, args=(write,), daemon=True)
        self.process.start()
        os.close(self.read)
        self.stdin = os.fdopen(write, "wb")

    def begin(self, variables: Mapping[str, object]) -> "Worker":
        self.stdin.write(json.dumps({name: str(value) for name, value in variables.items()}).encode() + b"\n")
        self.stdin.flush()
        return self

    def _main(self, write: int) -> None:
        os.close(write)
        os.dup2(self.read, 0)
        line = b"".join(iter(lambda: os.read(0, 1).strip(b"\n"), b""))  # nothing beyond its end
        if not line:  # the command needed no worker, or is gone
            return
        os.environ.update(json.loads(line))
        worker._die_with_parent()
        sys.exit(worker.main())

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        if self.process.is_alive():
            raise subprocess.TimeoutExpired("worker", timeout or 0)
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()


def workers() -> None:
    """A worker for a command over two processes."""
    waiting = [Worker()]
    launch._child = lambda variables: waiting.pop().begin(variables)  # type: ignore[assignment, return-value]


@pytest.fixture
def folder(quick: Make) -> Path:
    return quick(CHAIN, **{"data.py": DATA}).parent


def begin(folder: Path, runs: str = "runs", *words: str) -> Shrink:
    return shrink(folder, "run", str(folder / "chain.yaml"), "--runs", str(folder / runs), "--processes", "2", *words)


def shrink(folder: Path, *words: str) -> Shrink:
    return Shrink(folder, *words, prepare=workers)


@pytest.fixture
def whole(kept: dict[str, list[str]], folder: Path) -> list[str]:
    """The digests of a run over two processes that nothing disturbs."""
    if not kept:
        ended = begin(folder, "whole", "--json").end()
        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["verdict"] is None
        assert [line for line in ended.err.splitlines() if "arning" in line] == []
        kept["digests"] = digests(Record.load(only_run(folder / "whole")))
    return kept["digests"]


def one_message(ended: Ended) -> str:
    assert "Traceback" not in ended.err
    (message,) = [line for line in ended.err.splitlines() if line.startswith("shrink: ")]
    return message


def finish(folder: Path, *words: str) -> None:
    for asked in folder.glob("asked-*"):
        asked.unlink()
    again = shrink(folder, "resume", str(only_run(folder)), *words).end()
    assert again.code == 0, again.err


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_resume_gives_the_same_weights(folder: Path, whole: list[str]) -> None:
    (folder / "asked-1").write_text("os.kill(os.getpid(), signal.SIGKILL)")
    child = begin(folder)
    ended = child.end()
    run = only_run(folder)
    assert ended.code == 3
    message = one_message(ended)
    assert "a process of the training was lost: rank 1 of 2 was killed by SIGKILL" in message
    assert f"`shrink resume {run} --processes 2` goes on" in message
    failure = Record.load(run).failure
    assert (failure.where, failure.exit_code) == ("baseline[0] (train.supervised)", 3)
    assert child.group() == []
    finish(folder)
    assert "goes on at epoch 1" in (run / "run.log").read_text()
    assert digests(Record.load(run)) == whole


@pytest.mark.slow
@pytest.mark.parametrize("everyone", [True, False])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_stops_after_the_step(
    folder: Path, whole: list[str], everyone: bool, number: signal.Signals, code: int
) -> None:
    for rank in range(2):
        (folder / f"asked-{rank}").write_text("time.sleep(0.3)")
    child = begin(folder)
    child.until((folder / "reached").exists)
    (os.killpg if everyone else os.kill)(child.process.pid, number)
    ended = child.end()
    assert ended.code == code, ended.err
    assert re.search(r"stopped in epoch 1 after step \d", one_message(ended))
    assert child.group() == []
    run = only_run(folder)
    assert [event["event"] for event in journal.read(run / "journal.jsonl")][-1] == "stopped"
    finish(folder)  # with two processes, as it began
    assert digests(Record.load(run)) == whole


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_stops_at_once(folder: Path, number: signal.Signals) -> None:
    (folder / "asked-0").write_text("time.sleep(1000)")
    child = begin(folder)
    child.until((folder / "reached").exists)
    os.killpg(child.process.pid, number)
    child.until(lambda: "once more stops at once" in child.err.read_text())
    os.killpg(child.process.pid, number)
    ended = child.end()
    assert ended.code in (128 + number, -number)
    assert "Traceback" not in ended.err
    deadline = time.monotonic() + PATIENCE
    while child.group() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert child.group() == []


@pytest.mark.slow
def test_where_rank_0_is_killed_the_others_end(folder: Path) -> None:
    (folder / "asked-1").write_text("time.sleep(1000)")  # in no collective that could fail
    child = begin(folder)
    child.until((folder / "reached").exists)
    child.process.kill()
    child.end()
    deadline = time.monotonic() + PATIENCE
    while child.group() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert child.group() == []


@pytest.mark.slow
def test_an_error_in_one_process_is_told_by_rank_0(folder: Path) -> None:
    (folder / "asked-1").write_text("raise ValueError('this rank is bad')")
    child = begin(folder)
    ended = child.end()
    assert ended.code == 3
    assert "rank 1 of 2 processes failed: the task's loss: ValueError: this rank is bad" in one_message(ended)
    assert child.group() == []


@pytest.mark.slow
def test_an_error_in_rank_0_or_in_all_ends_all(folder: Path) -> None:
    for ranks in ([0], [0, 1]):
        for rank in ranks:
            (folder / f"asked-{rank}").write_text("raise ValueError('bad')")
        child = begin(folder, f"runs{len(ranks)}" if len(ranks) > 2 else "runs")
        ended = child.end()
        assert ended.code == 3
        assert "ValueError: bad" in one_message(ended)
        assert child.group() == []


@pytest.mark.slow
def test_other_data_in_another_process_is_refused(folder: Path) -> None:
    (folder / "other").touch()
    ended = begin(folder).end()
    assert ended.code == 3
    assert "rank 1 of 2 processes failed: the task has other data here than in rank 0" in one_message(ended)


@pytest.mark.slow
def test_real_processes_from_python_and_what_is_not_trained_is_shared(folder: Path, whole: list[str]) -> None:
    record = runner.run(folder / "chain.yaml", runs=folder / "runs", track=False, processes=2)
    assert digests(record) == whole
    assert not torch.distributed.is_initialized()
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & set(os.environ)
    alone = runner.run(folder / "chain.yaml", runs=folder / "runs", track=False)
    assert [stage.cached for stage in alone.stages] == [False]  # the number of processes is in the key
    assert alone.baseline is not None
    assert alone.baseline.digest != whole[0] or alone.baseline.key != record.baseline.key  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_search_for_widths_goes_the_same_way_in_all_processes(project: Make) -> None:
    def trained(settings: str) -> dict[str, object]:
        first, net = "train.supervised, epochs: 6, batch_size: 32, learning_rate: 0.01", "use: models.py:TinyNet"
        chain = project(chain_of(f"quantize.aware, epochs: 1, {settings}", baseline=first, model=net))
        record = runner.run(chain, runs=chain.parent / "runs", track=False, processes=2)
        return {"digest": record.stages[0].digest, **record.stages[0].reports.get("keep", {})}

    kept = trained("keep: {drop: 0.1}")
    assert len(kept["tried"]) > 1  # type: ignore[arg-type]
    assert trained(f"layers: {json.dumps(kept['settings']['layers'])}")["digest"] == kept["digest"]  # type: ignore[index]


@pytest.mark.slow
def test_under_torchrun_the_weights_are_the_same(folder: Path, whole: list[str]) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "pipeline"]
    arguments = ["run", str(folder / "chain.yaml"), "--runs", str(folder / "runs"), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command + arguments, capture_output=True, text=True, timeout=PATIENCE * 3, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["failure"] is None
    assert "Traceback" not in ended.stderr
    assert digests(Record.load(only_run(folder))) == whole
    listed = subprocess.run([*command, "schema", "--record"], capture_output=True, text=True, timeout=PATIENCE)
    assert listed.returncode == 0
    assert json.loads(listed.stdout)


def test_what_rank_0_makes_alone_has_the_threads_of_those_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Heard(World):
        said: list[object] = []

        def broadcast(self, value: object = None) -> None:
            self.said.append(value)

        def wait(self) -> None: ...

    def kept(*parts: object) -> Path:
        seen["made"] = torch.get_num_threads()
        return tmp_path

    seen: dict[str, int] = {}
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(4)
    try:
        processes = Processes(Heard(0, 2))
        keep = processes.share(kept)
        with processes.together({"place": "stages[0]"}, ""):
            seen["trained"] = torch.get_num_threads()
            assert keep("logits", None, {}, lambda folder: None) == tmp_path  # type: ignore[arg-type]
            seen["trained again"] = torch.get_num_threads()
        seen["after"] = torch.get_num_threads()
    finally:
        torch.set_num_threads(1)
    assert seen == {"trained": 2, "made": 4, "trained again": 2, "after": 4}
    assert Heard.said == [{"place": "stages[0]"}, str(tmp_path)]


@pytest.mark.parametrize(("words", "found"), [
    (["--processes", "0"], "Invalid value for '--processes'"),
    (["--processes", "5"], "a batch of 32 cannot be divided into 5 equal parts"),
    (["--processes", "32", "--set", "baseline.0.accumulate=8"], "a batch of 32 cannot be divided into 256 equal parts"),
    (["--processes", "256", "--set", "baseline.0.batch_size=256"], "the 128 examples to train on cannot be divided"),
])  # fmt: skip
def test_what_cannot_be_divided_is_a_usage_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], found: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["shrink", "run", str(folder / "chain.yaml"), "--runs", str(folder / "r"), *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    assert found in re.sub(r"[\s│]+", " ", capsys.readouterr().err)
    assert not (folder / "r").exists()


def test_the_settings_of_a_recovery_are_divided_too(tmp_path: Path) -> None:
    settings = {"use": "prune.channels", "macs": 0.5, "recovery": {"epochs": 1, "batch_size": 9}}
    chain = build_chain([StageConfig.model_validate(settings)], "stages", tmp_path, None)
    check_division(3, torch.device("cpu"), chain, 100)
    with pytest.raises(ConfigError, match=r"stages\[0\] \(prune.channels\): a batch of 9 cannot be divided into 2"):
        check_division(2, torch.device("cpu"), chain, 100)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_division(2, torch.device("cuda"), (), 100)
    with pytest.raises(ConfigError, match="3 processes on 2 GPUs"):
        check_division(3, torch.device("cuda"), (), 100)


def test_how_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [how_many(None), how_many(None, 4), how_many(3, 4)] == [1, 4, 3]
    with pytest.raises(ConfigError, match="there are 0 processes"):
        how_many(0)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert [how_many(None, 4), how_many(2)] == [2, 2]
    with pytest.raises(ConfigError, match="it says 3 and torchrun 2"):
        how_many(3)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ConfigError, match="this is rank 1"):
        how_many(None)
