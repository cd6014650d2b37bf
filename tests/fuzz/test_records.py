"""Damaged records, journals, comparisons and stores: no command calls them a bug, and none writes elsewhere."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.faults import OUTSIDE, bytes_with_fault, json_with_fault, lines_with_fault
from tests.fuzz.trials import Trial, problems

Fault = Callable[[bytes, Random], bytes]

ONE, BOTH = "runs/one", "runs/both"
QUICK = [["gate", ONE], ["gate", ONE, "--json"], ["expect", ONE, "--output", "out/e.json"],
         ["package", ONE, "--output", "out"], ["store", "list"], ["store", "gc", "--unreachable"],
         ["sync", ONE], ["report", ONE]]  # fmt: skip
FAULTS: dict[str, tuple[Fault, list[list[str]]]] = {
    f"{ONE}/record.json": (json_with_fault, QUICK),
    f"{ONE}/journal.jsonl": (lines_with_fault, [*QUICK[:1], *QUICK[2:7], ["resume", ONE]]),
    f"{BOTH}/comparison.json": (json_with_fault, [["report", BOTH], ["sync", BOTH]]),
    "runs/test_uses.jsonl": (lines_with_fault, [["resume", ONE]]),
    f"{ONE}/tracking.json": (bytes_with_fault, [["sync", ONE]]),
    "model.json": (json_with_fault, [["sync", ONE], ["package", ONE, "--output", "out"]]),
    "example.safetensors": (bytes_with_fault, [["sync", ONE]]),
    "parts.json": (json_with_fault, [["store", "list"], ["store", "verify"], ["store", "show", "0"]]),
    "manifest.json": (json_with_fault, [["store", "verify"]]),
}
SHARES = [12, 6, 3, 1, 1, 1, 1, 2, 1]


def damaged(work: Path, random: Random) -> Trial:
    (name,) = random.choices([*FAULTS], SHARES)
    fault, commands = FAULTS[name]
    file = work / name if (work / name).exists() else random.choice(sorted(work.rglob(name)))
    words = random.choice(commands)
    if words[0] == "resume" and random.random() < 0.8:  # which reads the data before it begins
        words = ["gate", ONE]
    return Trial(tuple(words), partial(replace, file, fault, random))


def replace(file: Path, fault: Fault, random: Random, _: Path) -> None:
    content = file.read_bytes()
    file.unlink()  # other copies have it too
    file.write_bytes(fault(content, random))


def linked(work: Path, random: Random) -> Trial:
    """A file or folder of a run that is a link to what lies outside."""
    places = sorted(path for path in (work / ONE).rglob("*") if path.name != "record.json")
    return Trial(tuple(random.choice(QUICK)), partial(link, random.choice(places)))


def link(place: Path, work: Path) -> None:
    if place.is_dir():
        place.rename(work / "moved")
    else:
        place.unlink()
    place.symlink_to(work.parent / "outside" / ("" if (work / "moved").exists() else "secret"))


@pytest.mark.slow
def test_damaged_folders_of_runs(sample: Path, tmp_path: Path) -> None:
    (sample / ONE / "tracking.json").write_text('{"synced": false}\n')
    assert problems(tmp_path / "trials", sample, damaged, 900) == []


@pytest.mark.slow
def test_links_out_of_a_run(sample: Path, tmp_path: Path) -> None:
    assert OUTSIDE.endswith("outside/secret")
    assert problems(tmp_path / "trials", sample, linked, 150) == []
