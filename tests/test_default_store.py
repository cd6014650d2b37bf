"""The store under the default config, cut short: two runs at once, and a flipped bit in every stored file."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline.base.files import files_below
from pipeline.records import journal
from pipeline.records.record import Record
from pipeline.run.store.store import Store, verify

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "digits" / "compress.yaml"
SHORT = ["baseline.0.epochs=1", "stages.0.epochs=1", "stages.1.recovery.epochs=1"]
SHORT += ["stages.2.epochs=1", "stages.5.rounds=2", "budget.size=null"]
CODE = f"from pipeline.runner import run; run({str(CONFIG)!r}, overrides={SHORT!r}, runs=RUNS, track=False)"


@pytest.mark.slow
def test_two_runs_at_once_compute_each_result_once_and_a_flipped_bit_is_never_used(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE.replace("RUNS", repr(str(tmp_path)))]
    for process in [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]:
        assert process.wait(300) == 0, process.communicate()[1]
    folders = [path.parent for path in tmp_path.glob("*/record.json")]
    events = [event for folder in folders for event in journal.read(folder / "journal.jsonl")]
    made = Counter(event["key"] for event in events if event["event"] == "made")
    assert set(made.values()) == {1}
    first, second = (Record.load(folder) for folder in folders)
    assert [stage.digest for stage in first.stages] == [stage.digest for stage in second.stages]

    entries = [e for e in Store(tmp_path / "store").entries() if not str(e.parts["stage"]).endswith("foreseen")]
    assert {entry.key for entry in entries} == set(made)
    for file in [file for entry in entries for file in files_below(entry.path)]:
        whole = file.read_bytes()
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        assert any(verify(entry.path) for entry in entries), file
        file.write_bytes(whole)
    file = next(entry for entry in entries if entry.parts["stage"] == "quantize.pack").path / "model" / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    third = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert third.returncode == 0, third.stderr
    again = Record.load(max(file.parent for file in tmp_path.glob("*/record.json")))
    assert [stage.cached for stage in again.stages if stage.name == "quantize.pack"] == [False]
    assert [stage.digest for stage in again.stages] == [stage.digest for stage in first.stages]
