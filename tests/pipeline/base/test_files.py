"""Files and folders are there whole or not at all; digests are those that `sha256sum` says."""

import hashlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.base import files
from pipeline.base.files import (
    file_digest,
    files_below,
    folder_digest,
    link,
    locked,
    parse_json,
    whole,
    whole_folder,
    write_whole,
)
from pipeline.errors import Interruption
from tests.forked import die, exit_code, start


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def half() -> None:
        with whole(tmp_path / "a") as path:
            path.write_text("half")
            raise RuntimeError("stopped")

    (tmp_path / "a").write_text("before")
    with pytest.raises(RuntimeError, match="stopped"):
        half()
    assert (tmp_path / "a").read_text() == "before"
    assert files_below(tmp_path) == [tmp_path / "a"]
    write_whole(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"
    write_whole(tmp_path / "a", b"\xff")
    assert (tmp_path / "a").read_bytes() == b"\xff"
    assert files_below(tmp_path) == [tmp_path / "a"]


def test_it_is_on_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []
    monkeypatch.setattr(files, "sync", lambda path: synced.append((path.name, (tmp_path / "new").exists())))
    write_whole(tmp_path / "new", "text")
    assert synced == [(".new.tmp", False)]
    (tmp_path / "new").unlink()
    synced.clear()
    with whole_folder(tmp_path / "new", tmp_path / "being made") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").touch()
        (folder / "dangling").symlink_to("nowhere")
    assert sorted(synced[:-1]) == [("being made", False), ("file", False), ("inner", False)]
    assert synced[-1] == (tmp_path.name, True)  # the name itself


def test_a_folder_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    def half() -> None:
        with whole_folder(tmp_path / "a", tmp_path / "b") as folder:
            (folder / "file").touch()
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        half()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()  # an empty one gives way
    with whole_folder(tmp_path / "a", tmp_path / "b") as folder:
        (folder / "file").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["a", "a/file"]


def test_digests_tell_names_and_contents_and_links_share_them(tmp_path: Path) -> None:
    (tmp_path / "a" / "inner").mkdir(parents=True)
    (tmp_path / "a" / "inner" / "x.py").write_text("x")
    (tmp_path / "a" / "y.py").write_text("y")
    assert file_digest(tmp_path / "a" / "y.py") == hashlib.sha256(b"y").hexdigest()
    x, y = (hashlib.sha256(text).digest() for text in (b"x", b"y"))
    assert folder_digest(tmp_path / "a") == hashlib.sha256(b"inner/x.py\0" + x + b"y.py\0" + y).hexdigest()
    assert folder_digest(tmp_path / "a", "*.py") == hashlib.sha256(b"y.py\0" + y).hexdigest()
    link(tmp_path / "a", tmp_path / "b")
    assert folder_digest(tmp_path / "b") == folder_digest(tmp_path / "a")
    (tmp_path / "b" / "y.py").rename(tmp_path / "b" / "z.py")
    assert folder_digest(tmp_path / "b") != folder_digest(tmp_path / "a")


def hold(path: Path, with_child: bool) -> None:
    with locked(path):
        if with_child and os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        (path.parent / "held").touch()
        signal.pause()


@pytest.fixture(params=[False, True], ids=["alone", "with a child"])
def held(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, Any]]:
    """A lock that another process holds."""
    process = start(hold, tmp_path / "lock", request.param)
    while not (tmp_path / "held").exists():
        assert process.is_alive()
        time.sleep(0.01)
    yield tmp_path / "lock", process
    process.kill()
    process.join()


def test_a_lock_is_waited_for_and_free_as_soon_as_its_holder_is_killed(held: tuple[Path, Any]) -> None:
    path, process = held
    path.write_text("of the holder")
    began = time.monotonic()
    for seconds in (0, 0.2):
        with locked(path, seconds) as ours:
            assert not ours
    assert time.monotonic() - began >= 0.2
    assert path.read_text() == "of the holder"
    process.kill()
    with locked(path, 10) as ours, locked(path, 0) as twice:
        assert (ours, twice) == (True, False)
    assert path.read_text() == "of the holder"
    assert time.monotonic() - began < 10  # no child of it holds it any longer


def test_waiting_ends_where_the_check_raises(held: tuple[Path, Any]) -> None:
    def stop() -> None:
        raise Interruption("stop")

    with pytest.raises(Interruption, match="stop"), locked(held[0], check=stop):
        pass


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_folder_has_the_modes_of_the_umask_whatever_libraries_gave_its_files(tmp_path: Path, umask: None) -> None:
    with whole_folder(tmp_path / "new", Path(tempfile.mkdtemp(dir=tmp_path))) as folder:
        (folder / "inner").mkdir(0o700)
        save_file({"x": np.zeros(3)}, folder / "inner" / "weights.safetensors")
        os.close(os.open(folder / "private", os.O_CREAT, 0o600))
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "new", *(tmp_path / "new").rglob("*"))}
    assert modes == {"new": "0o750", "inner": "0o750", "weights.safetensors": "0o640", "private": "0o640"}


@pytest.mark.parametrize("text", ["", "NaN", "[1e999]", "[" * 5000, '"\\ud800"', "\xff", "9" * 30, "{'a': 1}"])
def test_json_that_no_standard_has_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 1|too large"):
        parse_json(text.encode("latin-1"))


def test_json_comes_back_as_it_was_written() -> None:
    value = {"a": [1, -2.5, None, True, "é", {"b": 2**63 - 1, "c": 3e38}]}
    assert parse_json(json.dumps(value)) == value


def use_scratch(above: Path) -> None:
    tempfile.tempdir = str(above)
    (files.scratch() / "left").write_text("something")
    die()


def test_what_killed_processes_left_is_swept_and_what_is_in_use_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = files._scratch(-1)
    assert exit_code(use_scratch, tmp_path) == -signal.SIGKILL
    (left,) = {path.parent for path in tmp_path.glob("*/left")}
    (tmp_path / "shrinkline-without-owner").mkdir()
    files._sweep(tmp_path)
    assert left.exists()  # it might not hold its lock yet
    for owner in tmp_path.glob("*/owner"):
        os.utime(owner, (0, 0))
    files._sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, tmp_path / "shrinkline-without-owner"])
