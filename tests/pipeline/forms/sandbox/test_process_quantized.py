"""A file from outside in a chain that quantizes it: by no session of ours, and what stops its process or ours."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnxruntime.capi.onnxruntime_inference_collection import InferenceSession

from pipeline.errors import ForeignError
from pipeline.forms.sandbox.process import Process
from pipeline.records.record import Record
from pipeline.runner import resume, run
from tests.forked import PATIENCE, Shrink
from tests.pipeline.forms.sandbox.foreign_files import classifier
from tests.users import chain_of, digests, only_run

CHAIN = chain_of("quantize.static, batch_size: 8", model="onnx: net.onnx")

DATA = """
import time
from pathlib import Path
import torch
from torch.utils.data import Dataset
from pipeline.task import Split, classification

FOLDER = Path(__file__).parent

class Images(Dataset):
    '''Slow as long as the test wants it, once the calibration has begun.'''

    def __init__(self, count, seed):
        self.images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        if (FOLDER / "slow").exists() and list(FOLDER.glob("runs/store/work/*/**/prepared.onnx")):
            (FOLDER / "reached").touch()
            time.sleep(float((FOLDER / "slow").read_text()))
        return self.images[i], i % 4

def task():
    return classification(Split(Images(64, 0)), Split(Images(32, 1)), Split(Images(64, 2)))
"""


@pytest.fixture
def folder(project: Callable[..., Path]) -> Path:
    path = project(CHAIN, **{"data.py": DATA})
    classifier(path.parent / "net.onnx")
    return path.parent


@pytest.mark.parametrize("stage", ["static", "dynamic"])
def test_no_session_is_made_in_the_process_that_runs_the_chain(
    stage: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a session is made in this process")

    (folder / "chain.yaml").write_text(CHAIN.replace("static, batch_size: 8", stage))
    monkeypatch.setattr(InferenceSession, "__init__", refuse)
    record = run(folder / "chain.yaml", runs=folder / "runs", track=False)
    assert record.stages[0].changed


def test_a_process_that_dies_ends_the_run_with_6_and_it_can_be_resumed(
    folder: Path, whole: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Process.ask

    def dying(process: Process, head: dict[str, Any], arrays: Any) -> Any:
        if head.get("step") == "static":
            process.process.kill()
        return ask(process, head, arrays)

    monkeypatch.setattr(Process, "ask", dying)
    with pytest.raises(ForeignError, match=r"quantizes it was killed by SIGKILL") as caught:
        run(folder / "chain.yaml", runs=folder / "runs", track=False)
    monkeypatch.undo()
    assert caught.value.run
    failure = Record.load(caught.value.run).failure
    assert failure.exit_code == 6
    assert failure.where.startswith("stages[0] (quantize.static): ONNX Runtime's quantizer: model ")
    assert digests(resume(caught.value.run, track=False)) == digests(whole)


def children(pid: int | None) -> list[int]:
    """The processes that a process has started and that have not ended."""
    rows = {path.parent.name: path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")}
    return [int(name) for name, row in rows.items() if int(row[1]) == pid and row[0] != "Z"]


def begun(folder: Path, slow: float) -> Shrink:
    """A run that has begun to calibrate; each example takes `slow` seconds."""
    (folder / "slow").write_text(str(slow))
    command = Shrink(folder, "run", str(folder / "chain.yaml"), "--runs", str(folder / "runs"))
    command.until((folder / "reached").exists)
    return command


def end(processes: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in processes):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_first_ctrl_c_leaves_the_stage_to_end_and_keeps_it(folder: Path) -> None:
    command = begun(folder, 0.02)
    command.send(signal.SIGINT, group=True)
    ended = command.end()
    assert ended.code == 130
    resumed = resume(only_run(folder), track=False)
    assert [stage.cached for stage in resumed.stages] == [True]


@pytest.mark.parametrize(
    ("number", "codes"), [(signal.SIGINT, {130}), (signal.SIGTERM, {143, -signal.SIGTERM}), (signal.SIGKILL, {-9})]
)
def test_what_stops_us_at_once_ends_the_process_and_the_resumed_run_is_the_same(
    folder: Path, whole: Record, number: signal.Signals, codes: set[int]
) -> None:
    command = begun(folder, 10 * PATIENCE)
    started = children(command.process.pid)
    assert started
    if number != signal.SIGKILL:
        command.send(number, group=True)
        command.until(lambda: "once more stops at once" in command.err.read_text())
    command.send(number, group=True)
    ended = command.end()
    assert ended.code in codes
    assert "Traceback" not in ended.err
    end(started)
    (folder / "slow").unlink()
    assert digests(resume(only_run(folder), track=False)) == digests(whole)
    assert not list((folder / "runs" / "store" / "work").iterdir())
