"""Folders of another user, or of a file system that may only be read: no command calls what it may not do a bug."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.test_records import BOTH, ONE, QUICK
from tests.fuzz.trials import Trial, problems

NOBODY = 65534
MODES = (0o000, 0o111, 0o222, 0o400, 0o444, 0o500, 0o555)
COMMANDS = [*QUICK, ["store", "verify"], ["report", BOTH], ["sync", BOTH], ["sync"], ["gate", ONE, "--runs", "runs"]]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder that every user reaches, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def forbidden(work: Path, random: Random) -> Trial:
    places = random.sample(sorted(work.rglob("*")), random.choice((1, 1, 3)))
    return Trial(tuple(random.choice(COMMANDS)), partial(forbid, places, random))


def forbid(places: list[Path], random: Random, _: Path) -> None:
    for place in sorted(places, reverse=True):  # the inner ones first
        if place.is_file():  # other copies have it too
            content = place.read_bytes()
            place.unlink()
            place.write_bytes(content)
        place.chmod(random.choice(MODES))


@pytest.mark.slow
def test_what_may_not_be_read_or_written(sample: Path, place: Path) -> None:
    shutil.copytree(sample, place / "sample")
    for folder, _, files in os.walk(place / "sample"):
        for path in (Path(folder), *(Path(folder) / name for name in files)):
            path.chmod(0o755 if path.is_dir() else 0o644)
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)
    assert problems(place / "trials", place / "sample", forbidden, 350, NOBODY) == []
