import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.records.record import Failure
from pipeline.report import files
from pipeline.report.files import STEP_SUMMARY, STEP_SUMMARY_BYTES, write_files
from pipeline.report.html import page
from tests.aliases import Make


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GitHub's summary of a step."""
    monkeypatch.setenv(STEP_SUMMARY, str(tmp_path / "step.md"))
    return tmp_path / "step.md"


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    monkeypatch.setattr(logging.getLogger("shrinkline"), "propagate", True)
    return lambda: [record.message for record in caplog.records if record.levelname == "WARNING"]


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def test_a_run_gets_its_three_files_and_nothing_else(record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STEP_SUMMARY, raising=False)
    made = record()
    write_files(made)
    assert names(made.folder) == {"summary.md", "junit.xml", "report.html"}
    assert (Path(made.folder) / "summary.md").read_text().startswith("## ✅ chain: pass")
    assert "</html>" in (Path(made.folder) / "report.html").read_text()


def test_a_run_that_failed_gets_them_too(record: Make) -> None:
    failure = Failure(where="stages[0]", message="it broke", exit_code=3)
    made = record(failure=failure, baseline=None, stages=[], gates=[], verdict=None)
    write_files(made)
    assert names(made.folder) == {"summary.md", "junit.xml", "report.html"}
    assert "it broke" in (Path(made.folder) / "junit.xml").read_text()


def test_a_comparison_gets_its_two_files(comparison: Make, step: Path) -> None:
    made = comparison()
    write_files(made)
    assert names(made.folder) == {"summary.md", "report.html"}
    assert step.read_text().startswith("## ★ quantize")


def test_the_summary_is_appended_to_that_of_the_step(record: Make, step: Path) -> None:
    step.write_text("before\n\n")
    write_files(record())
    write_files(record(verdict="fail"))
    assert step.read_text().startswith("before\n\n## ✅ chain: pass")
    assert "\n\n## ❌ chain: fail" in step.read_text()


def test_a_run_of_a_comparison_leaves_the_summary_to_it(record: Make, step: Path) -> None:
    write_files(record(comparison="compared"))
    assert not step.exists()


def test_a_summary_past_a_steps_limit_is_left_out(record: Make, step: Path, warnings: Callable[[], list[str]]) -> None:
    step.write_bytes(b"x" * (STEP_SUMMARY_BYTES - 100))
    write_files(record())
    assert step.stat().st_size == STEP_SUMMARY_BYTES - 100
    assert any("does not fit" in text for text in warnings())


def test_a_full_disk_is_a_warning_for_each_file_and_leaves_what_was_there(
    record: Make, monkeypatch: pytest.MonkeyPatch, step: Path, warnings: Callable[[], list[str]]
) -> None:
    made = record()
    write_files(made)
    before = (Path(made.folder) / "summary.md").read_text()

    def full(self: Path, content: Any, **_: Any) -> int:
        with self.open("wb") as file:
            file.write(b"half of ")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(page, "write_report", lambda record, path: path.write_text(""))
    write_files(record(verdict="fail"))
    assert names(made.folder) == {"summary.md", "junit.xml", "report.html"}
    assert (Path(made.folder) / "summary.md").read_text() == before
    assert len([text for text in warnings() if "No space left" in text]) == 3
    assert "chain: fail" in step.read_text()


@pytest.mark.parametrize("place", ["no/step.md", "/dev/full"])
def test_a_step_summary_that_cannot_be_written_is_a_warning(
    record: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, warnings: Callable[[], list[str]], place: str
) -> None:
    monkeypatch.setenv(STEP_SUMMARY, str(tmp_path / place))  # joined to /dev/full it is /dev/full
    write_files(record())
    assert any("summary of the step is not written" in text for text in warnings())


def test_a_bug_of_ours_is_not_swallowed(record: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "summary", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_files(record())
