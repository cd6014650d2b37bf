"""What people see: the table with all its figures at any width, the notes under it, and progress without a terminal."""

import io
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.base import progress as progress_module
from pipeline.base.estimate import Estimate
from pipeline.base.progress import progress
from pipeline.records.record import Record
from pipeline.report.terminal import WIDE, show
from tests import records
from tests.aliases import Logs, Patch


def full(folder: Path) -> Record:
    kept = Estimate(value=0.987, low=0.970, high=1.001)
    figures: dict[str, Any] = {"size_bytes": 99_900, "params": 77_700, "macs": 12_300_000, "score": 0.9648}
    figures |= {"retention": kept, "compression_ratio": 10.0, "seconds": 345.6, "file": "stages/0/model/model.onnx"}
    latency = [{"ratio": {"value": v, "low": v - 0.02, "high": v + 0.03}} for v in (0.52, 0.71)]
    return records.record(
        records.stage(0, "distill.logits", **figures),
        records.stage(1, "benchmark.latency", **figures, latency=latency),
        folder=str(folder),
        baseline=records.model(size_bytes=999_900, params=888_800, macs=123_400_000, score=0.9766, seconds=1234.5),
    )


def text(record: Record, width: int) -> str:
    out = io.StringIO()
    show(record, Console(file=out, width=width))
    return out.getvalue()


FIGURES = ["999.9 kB", "888.8 k", "123.4 M", "0.9766", "1234.5 s", "99.9 kB", "10.0x", "77.7 k", "12.3 M", "0.9648"]
INTERVALS = [("0.987", "[0.970, 1.001]"), ("0.52", "[0.50, 0.55]"), ("0.71", "[0.69, 0.74]")]


@pytest.mark.parametrize("width", [80, 100, 120, WIDE, 160, 200])
def test_every_figure_is_readable_at_any_width_from_80_columns(tmp_path: Path, width: int) -> None:
    printed = text(full(tmp_path), width)
    rows = [line for line in printed.splitlines() if line[:1] in "┏┃┡│├└"]
    assert max(map(len, rows)) <= width
    assert "…" not in printed
    cells = {cell.strip() for row in rows for cell in re.split("[│┃]", row)}
    assert set(FIGURES) <= cells
    for value, interval in INTERVALS:
        assert f"{value} {interval}" in cells if width >= WIDE else {value, interval} <= cells


@pytest.mark.parametrize("width", [100, 160])
def test_names_of_stages_are_whole_from_100_columns(tmp_path: Path, width: int) -> None:
    printed = text(full(tmp_path), width)
    for name in ("baseline", "distill.logits", "benchmark.latency"):
        assert re.search(rf"[│┃] ?{name} *[│┃]", printed)


def test_under_the_table_stand_warnings_verdicts_and_where_everything_is(tmp_path: Path) -> None:
    record = full(tmp_path)
    record.warnings.append("the student has [few] parameters " + "x" * 100)
    record.gates.append(records.gate("fail", message="size_bytes is 99,900, the limit 10"))
    printed = text(record, 80)
    notes = printed.splitlines()
    assert "warning: the student has [few] parameters" in printed  # and not taken for markup
    assert "fail: size_bytes is 99,900, the limit 10" in notes
    # A line as long as it is, so that a path can be copied whole.
    assert f"model: {tmp_path / 'stages/0/model/model.onnx'}" in notes
    assert notes[-1].startswith(f"run: {tmp_path}")


def test_a_run_that_measured_nothing_is_shown_all_the_same(tmp_path: Path) -> None:
    record = full(tmp_path).model_copy(update={"baseline": None, "stages": []})
    assert f"run: {tmp_path}" in text(record, 100)
    assert "model:" not in text(record, 100)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_without_a_terminal_progress_is_a_line_every_ten_seconds(monkeypatch: Patch, caplog: Logs) -> None:
    clock, log = Clock(), logging.getLogger("test.progress")
    monkeypatch.setattr(progress_module, "time", clock)
    with (
        caplog.at_level(logging.INFO, log.name),
        progress(Console(file=io.StringIO()), log, "training", 100) as advance,
    ):
        for step in range(25):
            clock.now += 1
            advance(1, f"loss {step}")
    assert caplog.messages == [
        "training: 10 of 100, 1.0/s, 90 s left loss 9",
        "training: 20 of 100, 1.0/s, 80 s left loss 19",
    ]


def test_progress_that_has_not_moved_says_so(monkeypatch: Patch, caplog: Logs) -> None:
    clock, log = Clock(), logging.getLogger("test.progress")
    monkeypatch.setattr(progress_module, "time", clock)
    with caplog.at_level(logging.INFO, log.name), progress(Console(file=io.StringIO()), log, "waiting", 5) as advance:
        clock.now += 11
        advance(0)
    assert caplog.messages == ["waiting: 0 of 5, 0.0/s, inf s left "]


def test_on_a_terminal_progress_is_a_bar_with_its_note() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with progress(console, logging.getLogger("test.progress"), "training", 4) as advance:
        advance(3, "loss 0.1234")
        advance(1)
    assert all(part in out.getvalue() for part in ("training", "4/4", "loss 0.1234"))


def test_a_packed_file_has_a_line_of_its_bytes_by_encoding(tmp_path: Path) -> None:
    record = full(tmp_path)
    assert "Packed" not in text(record, 200)
    record.stages[0].reports["packing"] = records.packing()
    assert ", graph 3.1 kB\n" in text(record, 200)


@pytest.mark.parametrize(("uri", "line"), [
    ("https://me:secret@host/mlflow", "MLflow: https://host/mlflow/#/experiments/7/runs?"),
    ("postgresql://me:secret@host/db", "MLflow: postgresql://***@host/db"),
    ("databricks", "MLflow: databricks"),
    ("sqlite:////data/mlflow.db", "MLflow: mlflow ui --backend-store-uri sqlite:////data/mlflow.db, then open http://127."),
])  # fmt: skip
def test_what_opens_mlflow_can_be_typed_as_it_stands(tmp_path: Path, monkeypatch: Patch, uri: str, line: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (tmp_path / "tracking.json").write_text('{"experiment": "7"}')
    shown = text(full(tmp_path), 200)
    assert line in shown
    assert "secret" not in shown
    if "***" in line or uri == "databricks":
        assert f"{line}\n" in shown
