"""Files and folders are there whole or not at all; digests are those that `sha256sum` says."""

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.base import files
from pipeline.base.files import file_digest, files_below, folder_digest, link, locked, whole, whole_folder, write_whole
from pipeline.errors import Interruption
from tests.forked import start


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
