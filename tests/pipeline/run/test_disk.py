"""A full disk: refused before work where that can be known, else told with figures; what was made stays whole."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline.base import files
from pipeline.base.files import files_below
from pipeline.build.build import build
from pipeline.build.source import load_config
from pipeline.errors import ResourceError
from pipeline.model import TorchModel
from pipeline.records.journal import Journal
from pipeline.records.record import Record
from pipeline.run import disk, executor
from pipeline.run.store import store
from pipeline.run.store.gc import damaged
from pipeline.run.store.store import Store
from pipeline.runner import resume, run
from tests.aliases import Make, Patch
from tests.users import digests, only_run

FULL = OSError(errno.ENOSPC, "No space left on device")


PLACES: dict[str, tuple[Any, str, int]] = {
    "a stage or its model": (TorchModel, "save", 2),
    "the measuring": (store, "file_digest", 8),
    "the manifest": (files, "sync", 3),
    "the rename": (Path, "rename", 2),
    "the journal": (Journal, "write", 6),
    "the first line of the journal": (Journal, "write", 0),
    "the last line of the journal": (Journal, "write", 19),
    "record.json": (Record, "save", 2),
    "the files of the run": (executor, "link", 2),
    "the lock": (store, "locked", 3),
}


@pytest.fixture
def expected(kept: dict[str, list[str]], quick: Make, tmp_path: Path) -> list[str]:
    """The models of a run that nothing disturbs."""
    if not kept:
        kept["digests"] = digests(run(quick(), runs=tmp_path / "whole", track=False))
    return kept["digests"]


@pytest.mark.parametrize(
    ("place", "lasting"), [*((place, True) for place in PLACES), ("the journal", False), ("record.json", False)]
)
def test_a_disk_that_runs_out_anywhere_is_told_with_figures_and_resumed(
    quick: Make, tmp_path: Path, monkeypatch: Patch, expected: list[str], place: str, lasting: bool
) -> None:
    chain, (owner, name, point) = quick(), PLACES[place]
    original, calls = getattr(owner, name), count()

    def call(*args: Any, **kwargs: Any) -> Any:
        now = next(calls)
        if now == point or (lasting and now > point):
            raise FULL
        return original(*args, **kwargs)

    with monkeypatch.context() as full:
        full.setattr(owner, name, call)
        with pytest.raises((ResourceError, OSError)) as caught:
            run(chain, runs=tmp_path / "runs", track=False)
    if place != "the first line of the journal":  # before it there is no run to tell about
        assert isinstance(caught.value, ResourceError)
        assert caught.value.exit_code == 4
        assert "No space left on device" in str(caught.value)
        assert " are free; " in str(caught.value)
        assert "The chain needs about " in str(caught.value)
        assert f"shrink resume {only_run(tmp_path / 'runs')}" in str(caught.value)
        assert damaged(Store(tmp_path / "runs" / "store")) == {}
        record = resume(only_run(tmp_path / "runs"), track=False)
        assert record.failure is None
        assert digests(record) == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, where mounting is permitted."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("mounting is not permitted")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # a model may still be mapped


@pytest.mark.parametrize("free", [80_000, 120_000, 160_000, 200_000])
def test_on_a_really_full_disk_nothing_is_lost(quick: Make, small_disk: Path, free: int, expected: list[str]) -> None:
    chain, runs = quick(), small_disk / "runs"
    filler = small_disk / "filler"
    filler.write_bytes(bytes(2**20 - free))
    with pytest.raises(ResourceError, match=r"No space left on device.*needs about .* are free") as caught:
        run(chain, runs=runs, track=False)
    assert caught.value.exit_code == 4
    assert damaged(Store(runs / "store")) == {}
    held = {entry.key for entry in Store(runs / "store").entries()}
    filler.unlink()
    record = resume(only_run(runs), track=False)
    assert digests(record) == expected
    assert held <= {key for made in (record.baseline, *record.stages) if made for key in made.uses}


def test_a_chain_that_cannot_fit_is_refused_before_work(quick: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    chain = quick()
    config, source = load_config(chain)
    needed = disk.estimate_bytes(build(config, source))
    real = os.statvfs(tmp_path)

    def usage(free: int) -> Callable[[Any], Any]:
        return lambda path: type("Usage", (), {"total": real.f_blocks, "used": 0, "free": free})

    monkeypatch.setattr(shutil, "disk_usage", usage(needed - 1))
    with pytest.raises(ResourceError, match=r"too full.*needs about .* are free") as caught:
        run(chain, runs=tmp_path / "runs", track=False)
    assert caught.value.exit_code == 4
    assert Store(tmp_path / "runs" / "store").entries() == []
    monkeypatch.setattr(shutil, "disk_usage", usage(needed))
    run(chain, runs=tmp_path / "runs", track=False)


@pytest.mark.slow
def test_the_estimate_is_above_what_a_chain_writes_and_grows_with_it(project: Make) -> None:
    def needed(*overrides: str) -> int:
        config, source = load_config(project(), overrides)
        return disk.estimate_bytes(build(config, source))

    assert needed("model.width=32") > needed() > needed("stages=[{use: export.onnx}]")
    assert run(project(), runs=project().parent / "runs", track=False).baseline is not None
    assert sum(file.stat().st_size for file in files_below(project().parent / "runs" / "store")) < needed()
