"""Each model that was measured on a test split counts once, whoever measures, and whatever was killed in between."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.records.record import Record
from pipeline.records.test_uses import FILE, note_use
from pipeline.runner import run
from tests.forked import start


def lines(runs: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (runs / FILE).read_text().splitlines()]


def test_a_model_counts_once_for_a_test_split(tmp_path: Path) -> None:
    assert [note_use(tmp_path, "t", model, "run") for model in ("a", "b", "a", "c")] == [1, 2, 2, 3]
    assert note_use(tmp_path, "other", "a", "run") == 1
    assert [(line["test"], line["model"], line["run"]) for line in lines(tmp_path)] == [
        ("t", "a", "run"), ("t", "b", "run"), ("t", "c", "run"), ("other", "a", "run"),
    ]  # fmt: skip
    assert all(line["time"].endswith("+00:00") for line in lines(tmp_path))


def test_a_torn_last_line_is_ignored_and_the_next_one_is_whole(tmp_path: Path) -> None:
    note_use(tmp_path, "t", "a", "run")
    with (tmp_path / FILE).open("a") as file:
        file.write('{"test": "t", "model": "b", "ru')
    assert note_use(tmp_path, "t", "a", "run") == 1
    assert note_use(tmp_path, "t", "c", "run") == 2
    assert [line["model"] for line in lines(tmp_path)] == ["a", "c"]


def test_a_ledger_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("my notes\n")
    with pytest.raises(ConfigError, match=r"test_uses.jsonl.*Repair or remove it"):
        note_use(tmp_path, "t", "a", "run")


def test_a_line_that_does_not_fit_on_the_disk_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note_use(tmp_path, "t", "a", "run")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            note_use(tmp_path, "t", "b", "run")
    assert [line["model"] for line in lines(tmp_path)] == ["a"]
    assert note_use(tmp_path, "t", "c", "run") == 2


def use_often(runs: Path, name: str) -> None:
    for i in range(40):
        note_use(runs, "t", f"{name}{i}", name)
        note_use(runs, "t", f"shared{i}", name)


def test_processes_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for child in [start(use_often, tmp_path, name) for name in "abc"]:
        child.join(60)
        assert child.exitcode == 0
    found = [line["model"] for line in lines(tmp_path)]
    assert len(found) == len(set(found)) == 40 * 4


def test_runs_count_the_models_that_they_measure(quick: Callable[..., Path]) -> None:
    chain = quick()
    runs = chain.parent / "runs"

    def uses(*overrides: str) -> int | None:
        record = run(chain, overrides=overrides, runs=runs, track=False)
        assert Record.load(Path(record.folder)).test_uses == record.test_uses
        return record.test_uses

    # Baseline, a stage that changes it, one that only looks, and the export.
    assert uses() == 3
    assert uses() == 3  # the same models again
    assert uses("stages.0.strength=0.3") == 5
    assert {line["test"] for line in lines(runs)} == {ledger_digest(runs)}
    assert uses("seed=1") == 8


def ledger_digest(runs: Path) -> str:
    record = Record.load(next(runs.glob("*/record.json")).parent)
    test: dict[str, str] = record.data["test"]  # type: ignore[assignment]
    return test["digest"]
