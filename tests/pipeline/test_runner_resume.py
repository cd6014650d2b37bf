"""A run that was killed goes on where it was: killed at any point, it ends as if it had not been."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from pipeline.base.files import file_digest, files_below
from pipeline.errors import ConfigError
from pipeline.records import journal
from pipeline.records.record import Record
from pipeline.run.store.gc import damaged
from pipeline.run.store.store import Store
from pipeline.runner import resume, run
from tests.forked import die, exit_code
from tests.pipeline.conftest import quick_run
from tests.users import MINE_ALONE, only_run, stage_file

Make = Callable[..., Path]
Outcome = tuple[dict[str, str], dict[str, Any]]

ROOT = Path(__file__).parents[2]

JOURNAL = ("pipeline.records.journal:Journal", "write")
CHANGES, LOOKS = ["begin", "made", "begin", "made", "measured"], ["begin", "made", "measured"]
EVENTS = ["start", *CHANGES, *CHANGES, *LOOKS, *CHANGES, "end"]
"""What a run of the quick chain journals: a stage that changes the model is made, and then its measurement."""


def outcome(folder: Path) -> Outcome:
    """The digests of all models and deployed files of a run, and its record but for times, cached and its names."""
    files = [file for file in files_below(folder) if file.parent != folder]
    record = json.loads((folder / "record.json").read_text())
    for name in ("run", "folder", "started", "origin"):
        del record[name]
    for made in [record["baseline"], *record["stages"]]:
        for name in ("seconds", "finished", "cached"):
            del made[name]
    return {str(file.relative_to(folder)): file_digest(file) for file in files}, record


def killed_at(owner: str, name: str, point: int, after: bool, chain: Path, runs: Path) -> None:
    """Run it in a child that kills itself at one call of a function, before the call or after it."""
    assert exit_code(run_until, owner, name, point, after, chain, runs) == -signal.SIGKILL


def run_until(where: str, name: str, point: int, after: bool, chain: Path, runs: Path) -> None:
    owner = resolve_name(where)
    original, calls = getattr(owner, name), count()

    def call(*args: Any, **kwargs: Any) -> Any:
        here = next(calls) == point
        found = original(*args, **kwargs) if after or not here else None
        if here:
            die()
        return found

    setattr(owner, name, call)
    quick_run(chain, runs)


@pytest.fixture
def expected(kept: dict[str, Outcome], quick: Make, tmp_path: Path) -> Outcome:
    """The outcome of a run that nothing disturbs; also that of the points that are tried, which are all."""
    if not kept:
        folder = Path(run(quick(), runs=tmp_path / "whole", track=False).folder)
        assert [event["event"] for event in journal.read(folder / "journal.jsonl")] == EVENTS
        kept["outcome"] = outcome(folder)
    return kept["outcome"]


@pytest.mark.parametrize(
    "after", [pytest.param(False, marks=pytest.mark.slow, id="before"), pytest.param(True, id="after")]
)
@pytest.mark.parametrize("point", range(len(EVENTS)))
def test_killed_at_every_journalled_point_a_run_ends_as_if_it_had_not_been(
    quick: Make, tmp_path: Path, expected: Outcome, point: int, after: bool
) -> None:
    killed_at(*JOURNAL, point, after, quick(), tmp_path / "runs")
    folder = only_run(tmp_path / "runs")
    assert len(journal.read(folder / "journal.jsonl")) == point + after
    if point + after == 0:  # nothing had begun
        with pytest.raises(ConfigError, match="this is no run folder"):
            resume(folder, track=False)
        return
    resume(folder, track=False)
    assert outcome(folder) == expected


COMMIT = {
    "after the files": ("pipeline.run.store.store", "file_digest", False),
    "before the manifest is synced": ("pipeline.base.files", "sync", False),
    "before the rename": ("pathlib:Path", "rename", False),
    "between the rename and the sync of its folder": ("pathlib:Path", "rename", True),
}


@pytest.mark.parametrize("moment", COMMIT)
def test_killed_in_the_middle_of_a_commit_nothing_half_is_left(
    quick: Make, tmp_path: Path, expected: Outcome, moment: str
) -> None:
    owner, name, after = COMMIT[moment]
    killed_at(owner, name, 1, after, quick(), tmp_path / "runs")
    assert damaged(Store(tmp_path / "runs" / "store")) == {}
    folder = only_run(tmp_path / "runs")
    resume(folder, track=False)
    assert outcome(folder) == expected
    assert not list((tmp_path / "runs" / "store" / "entries").glob(".*"))


def run_until_change(point: int, chain: Path, runs: Path) -> None:
    """A run that kills itself before it changes the disk for the n-th time."""
    changes, calls = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}, count()

    def audit(event: str, args: tuple[Any, ...]) -> None:
        written = event == "open" and isinstance(args[1], str) and args[1][0] in "wa"
        if (event in changes or written) and str(runs) in str(args[0]) and next(calls) == point:
            die()

    sys.addaudithook(audit)
    quick_run(chain, runs)


@pytest.mark.slow
def test_killed_before_every_third_change_of_the_disk_a_run_ends_as_if_it_had_not_been(
    quick: Make, tmp_path: Path, expected: Outcome
) -> None:
    """With FUZZ=all before every one."""
    chain, point = quick(), 0
    step = 1 if os.environ.get("FUZZ") == "all" else 3
    while True:
        runs = tmp_path / f"runs{point}"
        code = exit_code(run_until_change, point, chain, runs)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        point += step
        started = [path.parent for path in runs.glob("*/journal.jsonl") if journal.read(path)]
        for folder in started:
            assert damaged(Store(runs / "store")) == {}
            resume(folder, track=False)
            assert outcome(folder) == expected, point
    assert point > 5 * len(EVENTS)


def test_a_torn_last_line_of_the_journal_is_left_out(quick: Make, tmp_path: Path, expected: Outcome) -> None:
    killed_at(*JOURNAL, 7, True, quick(), tmp_path / "runs")
    folder = only_run(tmp_path / "runs")
    whole = journal.read(folder / "journal.jsonl")
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b'{"time": "2026-01-01T00:00:00+00:00", "event": "ma')
    assert journal.read(folder / "journal.jsonl") == whole
    resume(folder, track=False)
    assert outcome(folder) == expected
    assert journal.read(folder / "journal.jsonl")[:9] == [*whole, journal.read(folder / "journal.jsonl")[8]]


@pytest.mark.parametrize(("point", "named"), [(1, "baseline[0] (noise.py)"), (9, ""), (11, "stages[1] (look.py)")])
def test_resume_names_the_stage_that_was_killed_and_suggests_a_smaller_batch(
    quick: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, point: int, named: str
) -> None:
    killed_at(*JOURNAL, point, True, quick(), tmp_path / "runs")
    with caplog.at_level(logging.INFO, "shrinkline"):
        resume(only_run(tmp_path / "runs"), track=False)
    told = [record.getMessage() for record in caplog.records if "was killed in" in record.getMessage()]
    assert len(told) == bool(named)
    assert all(f"was killed in {named}" in text and "lower its batch_size" in text for text in told)


def test_resume_of_a_run_that_ended_changes_nothing(quick: Make, tmp_path: Path, caplog: Any) -> None:
    folder = Path(run(quick(), runs=tmp_path / "runs", track=False).folder)
    before = outcome(folder)
    record = resume(folder, track=False)
    assert outcome(folder) == before
    assert all(made.cached for made in record.stages)
    assert "was killed" not in caplog.text


DIES = """
half = ctx.directory / "half"
ctx.report("found", half.exists())
if not half.exists():
    half.write_text("")
    os.kill(os.getpid(), signal.SIGKILL)
return model
"""


def test_a_stage_that_was_killed_is_given_its_folder_again(quick: Make, tmp_path: Path) -> None:
    chain = quick(MINE_ALONE.replace("TinyNet", "flat"), **{"mine.py": stage_file(DIES)})
    assert exit_code(quick_run, chain, tmp_path / "runs") == -signal.SIGKILL
    record = resume(only_run(tmp_path / "runs"), track=False)
    assert record.stages[0].reports == {"found": True}
    assert list((tmp_path / "runs" / "store" / "work").iterdir()) == []


def is_distilling(runs: Path) -> bool:
    """Whether stages[0] has trained for an epoch."""
    events = [event for file in runs.glob("*/journal.jsonl") for event in journal.read(file)]
    if not journal.unfinished(events).startswith("stages[0] (distill.logits)"):
        return False
    (key,) = (e["key"] for e in events if (e["event"], e.get("place")) == ("begin", "stages[0] (distill.logits)"))
    work: Path = runs / "store" / "work" / key
    return (work / "training" / "checkpoint-2").exists()


@pytest.mark.slow
def test_the_default_config_killed_from_outside_and_resumed_gives_the_same_models(tmp_path: Path) -> None:
    config = ROOT / "configs" / "digits" / "compress.yaml"
    few = ["baseline.0.epochs=3", "stages.0.epochs=4", "stages.1.recovery.epochs=2", "budget={}"]
    words = ["run", str(config), *(word for value in few for word in ("--set", value)), "--json"]

    def shrink(*args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pipeline", *args]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)

    undisturbed = shrink(*words, "--runs", "whole")
    out, _ = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0
    expected = Record.model_validate_json(out)

    killed = shrink(*words, "--runs", "runs")
    while not is_distilling(tmp_path / "runs"):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.communicate(timeout=60)
    resumed = shrink("resume", str(only_run(tmp_path / "runs")), "--json")
    out, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0
    found = Record.model_validate_json(out)
    assert found.baseline.cached
    assert [made.digest for made in found.stages] == [made.digest for made in expected.stages]
    assert found.baseline.digest == expected.baseline.digest
    for ours, theirs in zip(found.stages, expected.stages, strict=True):
        different = {"seconds", "finished", "cached", "latency", "kernels", "reports"}
        assert ours.model_dump(exclude=different) == theirs.model_dump(exclude=different)
        assert file_digest(Path(found.folder) / ours.file) == file_digest(Path(expected.folder) / theirs.file)
