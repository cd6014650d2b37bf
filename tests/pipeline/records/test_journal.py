"""The journal: whole lines, in order, on disk; whatever happens while one is written."""

import errno
import os
from pathlib import Path

import pytest

from pipeline.records.journal import Journal, read, unfinished
from tests.aliases import Patch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("start", folder="/é")
    journal.write("begin", place="stages[0]")
    journal.close()
    return journal.path


def events(path: Path) -> list[str]:
    return [line["event"] for line in read(path)]


def test_lines_are_read_as_they_were_written_and_later_ones_come_after(path: Path) -> None:
    later = Journal(path)
    later.write("made", key=None)
    later.close()
    found = read(path)
    assert [{k: v for k, v in line.items() if k != "time"} for line in found] == [
        {"event": "start", "folder": "/é"},
        {"event": "begin", "place": "stages[0]"},
        {"event": "made", "key": None},
    ]
    assert [line["time"] for line in found] == sorted(line["time"] for line in found)


def test_a_journal_that_is_not_there_or_empty_has_no_events(tmp_path: Path) -> None:
    assert read(tmp_path / "none.jsonl") == []
    (tmp_path / "empty.jsonl").write_text("")
    assert read(tmp_path / "empty.jsonl") == []
    assert unfinished([]) == ""


def test_torn_at_any_byte_the_whole_lines_are_read_and_the_rest_is_cut_off(path: Path) -> None:
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert events(path) == (["start"] if length >= first else [])
        journal = Journal(path)
        journal.write("end")
        journal.close()
        assert events(path) == (["start", "end"] if length >= first else ["end"])


def test_a_line_is_on_disk_when_write_returns(path: Path, monkeypatch: Patch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(events(path)))
    journal = Journal(path)
    journal.write("made")
    assert synced == [["start", "begin", "made"]]
    journal.close()


@pytest.mark.parametrize("room", [0, 1, 10])
def test_a_line_that_the_disk_cannot_hold_leaves_no_trace(path: Path, monkeypatch: Patch, room: int) -> None:
    journal = Journal(path)
    real = journal.file

    class Full:
        left = room

        def write(self, content: bytes) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = real.write(content[: self.left])
            self.left -= written
            return written

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    with monkeypatch.context() as patched:
        patched.setattr(journal, "file", Full())
        with pytest.raises(OSError, match="No space left"):
            journal.write("made", key="k")
    assert events(path) == ["start", "begin"]
    journal.write("failed")
    journal.close()
    assert events(path) == ["start", "begin", "failed"]


@pytest.mark.parametrize("event", ["made", "stopped", "failed", "end"])
def test_only_a_stage_whose_begin_is_the_last_word_is_unfinished(path: Path, event: str) -> None:
    assert unfinished(read(path)) == "stages[0]"
    journal = Journal(path)
    journal.write(event, place="stages[0]")
    journal.close()
    assert unfinished(read(path)) == ""


def test_a_stage_that_has_kept_something_by_itself_is_still_unfinished(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for event, place in [
        ("start", ""),
        ("begin", "stages[0]"),
        ("begin", "stages[0], logits"),
        ("made", "stages[0], logits"),
    ]:
        journal.write(event, place=place, key=place)
    assert unfinished(read(tmp_path / "journal.jsonl")) == "stages[0]"
    journal.write("made", place="stages[0]", key="stages[0]")
    assert unfinished(read(tmp_path / "journal.jsonl")) == ""
    journal.close()
