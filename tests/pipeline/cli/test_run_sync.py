"""`shrink sync` logs every folder that it can, says of each what became of it, and stops where nothing answers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.store.db.utils  # noqa: F401  # so that tests/kept.py has its tables
import pytest

from pipeline.records.record import Record
from pipeline.runner import run
from tests.users import MINE_ALONE, stage_file

Make = Callable[..., Any]


@pytest.fixture
def runs(project: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of runs that were not tracked, each damaged in its own way but for the first and the last."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    whole = Path(run(project(MINE_ALONE, **{"mine.py": stage_file()}), runs=tmp_path / "made", track=False).folder)
    for name in ("a-whole", "b-record", "c-journal", "d-file", "e-model", "f-whole"):
        shutil.copytree(whole, tmp_path / "runs" / name)
        Record.load(tmp_path / "runs" / name).model_copy(update={"run": name}).save()
    (tmp_path / "runs" / "b-record" / "record.json").write_text("{")
    (tmp_path / "runs" / "c-journal" / "journal.jsonl").write_text("3\n")
    shutil.rmtree(tmp_path / "runs" / "d-file" / "baseline")
    for example in (tmp_path / "runs" / "e-model").rglob("example.safetensors"):
        example.write_bytes(b"none")
    return tmp_path / "runs"


def test_a_bad_run_stops_no_other(runs: Path, shrink: Make) -> None:
    ended = shrink("sync", "--runs", runs)
    lines = dict(line.split(": ", 1) for line in ended.out.splitlines())
    assert lines["a-whole"] == lines["f-whole"] == "logged"
    assert {name for name, text in lines.items() if text.startswith("not logged: ")} == {
        "b-record",
        "c-journal",
        "d-file",
        "e-model",
    }
    assert ended.code == 2
    assert "4 of 6 are not logged" in ended.err
    assert "Traceback" not in ended.err
    again = shrink("sync", "--runs", runs)
    assert again.out.count("nothing to do") == 2


def test_a_folder_that_is_no_run_is_an_error_and_gets_no_file(tmp_path: Path, shrink: Make) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        ended = shrink("sync", folder)
        assert (ended.code, "this is no run folder" in ended.out) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert not list((tmp_path / "empty").iterdir())


def test_where_nothing_answers_the_others_are_not_tried(
    runs: Path, shrink: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    ended = shrink("sync", "--runs", runs)
    assert (ended.code, ended.out) == (7, "")
    assert ended.err.replace("\n", " ").count("cannot be reached") == 1


def test_a_bad_run_of_a_comparison_is_warned_of(runs: Path, shrink: Make) -> None:
    from pipeline.records.comparison import ComparisonRecord, StrategyRecord

    for name in ("a-whole", "f-whole"):
        Record.load(runs / name).model_copy(update={"comparison": "c"}).save()
    (runs / "c").mkdir()
    strategies = [StrategyRecord(name=name, runs=[name]) for name in ("a-whole", "b-record", "f-whole")]
    ComparisonRecord(
        comparison="c", folder=str(runs / "c"), started="2026-01-01T00:00:00+00:00", origins=[], strategies=strategies
    ).save()
    ended = shrink("sync", runs / "c")
    assert (ended.code, ended.out) == (0, "c: logged\n")
    assert "b-record/record.json" in "".join(ended.err.split())
    assert all(json.loads((runs / name / "tracking.json").read_text())["synced"] for name in ("a-whole", "f-whole"))
