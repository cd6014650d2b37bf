"""Housekeeping: what lies in the store, for whom, what is damaged, and what may go."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.records.journal import Journal
from pipeline.records.record import Record
from pipeline.run.store.gc import garbage, listing, one, users
from pipeline.run.store.store import Entry, Store
from pipeline.runner import run
from tests.aliases import Make
from tests.records import record


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three entries of 1, 2 and 3 kB, used 1, 2 and 3 days ago, under short keys; no run."""
    monkeypatch.setattr("pipeline.run.store.store.digest", lambda parts: f"{parts['stage'][1:]}a")
    store = Store(tmp_path / "store")
    for days in (1, 2, 3):
        with store.claim(f"{days}a", "x"), store.commit(f"{days}a", {"stage": f"s{days}"}) as folder:
            (folder / "model").write_bytes(bytes(days * 1000))
        os.utime(store.entries()[0].path / "manifest.json", (time.time() - days * 86_400,) * 2)
    return tmp_path


def keys(entries: list[Entry]) -> list[str]:
    return [entry.key for entry in entries]


RULES: dict[str, Any] = {"older_than_days": None, "keep_bytes": None, "unreachable": False}


@pytest.mark.parametrize(("rules", "gone"), [
    ({"older_than_days": 0}, ["1a", "2a", "3a"]),
    ({"older_than_days": 1.5}, ["2a", "3a"]),
    ({"older_than_days": 30}, []),
    ({"keep_bytes": 0}, ["1a", "2a", "3a"]),
    ({"keep_bytes": 4000}, ["3a"]),
    ({"keep_bytes": 10**9}, []),
    ({"keep_bytes": 1500, "older_than_days": 2.5}, ["2a", "3a"]),
    ({"unreachable": True}, ["1a", "2a", "3a"]),
])  # fmt: skip
def test_garbage_is_what_any_rule_names(runs: Path, rules: dict[str, Any], gone: list[str]) -> None:
    assert keys(garbage(Store(runs / "store"), runs, **{**RULES, **rules})) == gone


def test_a_result_that_is_reused_is_young_again(runs: Path) -> None:
    store = Store(runs / "store")
    store.find("3a")
    assert keys(store.entries()) == ["3a", "1a", "2a"]
    store.peek("2a")  # looking is not using
    assert keys(garbage(store, runs, **{**RULES, "older_than_days": 0.5})) == ["1a", "2a"]


def test_gc_is_a_dry_run_unless_told(runs: Path, shrink: Make) -> None:
    store = Store(runs / "store")
    dry = shrink("store", "gc", "--runs", runs, "--older-than", 1.5)
    assert dry.code == 0
    assert "2 results" in dry.out
    assert "would be removed; --yes removes them" in dry.out
    assert keys(store.entries()) == ["1a", "2a", "3a"]
    done = shrink("store", "gc", "--runs", runs, "--older-than", 1.5, "--yes")
    assert done.code == 0
    assert done.out.splitlines()[:2] == dry.out.splitlines()[:2]
    assert "removed" in done.out
    assert keys(store.entries()) == ["1a"]
    assert [path.name for path in (store.root / "entries").iterdir()] == ["1a"]


@pytest.mark.parametrize(("rules", "message"), [
    ([], "no rule is given"),
    (["--keep", "many"], "--keep is many; expected a size such as '10 GB'"),
    (["--older-than", "old"], "old"),
])  # fmt: skip
def test_gc_with_a_wrong_rule_is_exit_2(runs: Path, shrink: Make, rules: list[str], message: str) -> None:
    ended = shrink("store", "gc", "--runs", runs, "--yes", *rules)
    assert ended.code == 2
    assert message in ended.err
    assert len(Store(runs / "store").entries()) == 3


def test_gc_keeps_a_size_in_words(runs: Path, shrink: Make) -> None:
    assert shrink("store", "gc", "--runs", runs, "--keep", "4 kB", "--yes").code == 0
    assert keys(Store(runs / "store").entries()) == ["1a", "2a"]


def test_list_shows_each_result_with_its_runs_and_sizes(quick: Make, shrink: Make) -> None:
    chain = quick()
    runs = chain.parent / "runs"
    first, second = (run(chain, overrides=over, runs=runs, track=False) for over in ([], ["stages.0.strength=0.3"]))
    rows = {row["key"]: row for row in json.loads(shrink("store", "list", "--runs", runs, "--json").out)}
    assert len(rows) == 12  # 4 stages and 3 models of the first; 3 and 2 more of the second, whose baseline is shared
    assert sorted(rows[first.baseline.key]["runs"]) == sorted([first.run, second.run])
    assert rows[first.stages[0].key]["runs"] == [first.run]
    assert rows[first.stages[0].key]["stage"] == "noise.py"
    assert {row["stage"] for row in rows.values()} == {"noise.py", "look.py", "export.onnx", "measure"}
    for key, row in rows.items():
        files = (runs / "store" / "entries" / key).rglob("*")
        assert row["size_bytes"] == sum(file.stat().st_size for file in files if file.is_file())
    assert all(row["runs"] for row in rows.values())
    table = shrink("store", "list", "--runs", runs)
    assert table.code == 0
    assert "12 results" in table.out
    assert str(first.stages[0].key)[:12] in table.out


def test_only_what_no_run_rests_on_is_unreachable(quick: Make, shrink: Make) -> None:
    chain = quick()
    runs = chain.parent / "runs"
    kept, dropped = (run(chain, overrides=over, runs=runs, track=False) for over in ([], ["stages.0.strength=0.3"]))
    Path(dropped.folder).rename(chain.parent / "moved")
    shrink("store", "gc", "--runs", runs, "--unreachable", "--yes")
    assert {entry.key for entry in Store(runs / "store").entries()} == set(users(runs))
    again = run(chain, runs=runs, track=False)
    assert all(stage.cached for stage in again.stages)
    assert Record.load(Path(kept.folder)).stages[0].digest == again.stages[0].digest


def test_weights_of_modules_go_once_no_run_names_them(tmp_path: Path, shrink: Make) -> None:
    (tmp_path / "given").mkdir()
    files = {name: tmp_path / "given" / f"{name}.safetensors" for name in ("named", "unnamed", "begins")}
    for name, file in files.items():
        file.write_bytes(bytes(1000))
        if name != "begins":
            os.utime(file, (time.time() - 86_400,) * 2)
    config: Any = {"model": {"weights": f"elsewhere/{files['named'].name}"}}
    (tmp_path / "r").mkdir()
    record(folder=str(tmp_path / "r"), config=config).save()
    dry = shrink("store", "gc", "--runs", tmp_path, "--unreachable")
    assert "1 results, 1.0 kB: would be removed" in dry.out
    assert shrink("store", "gc", "--runs", tmp_path, "--unreachable", "--yes").code == 0
    assert [name for name, file in files.items() if file.exists()] == ["named", "begins"]


def test_what_a_killed_run_had_made_before_its_record_says_so_is_not_unreachable(quick: Make) -> None:
    chain = quick()
    runs = chain.parent / "runs"
    record = run(chain, runs=runs, track=False)
    early = record.model_copy(update={"baseline": None, "stages": []})  # as it is until the baseline is measured
    early.save()
    store = Store(runs / "store")
    assert garbage(store, runs, **{**RULES, "unreachable": True}) == []
    (Path(record.folder) / "journal.jsonl").unlink()
    Journal(Path(record.folder) / "journal.jsonl").close()
    assert len(garbage(store, runs, **{**RULES, "unreachable": True})) == 7


def test_an_unreadable_record_stops_gc_before_it_removes_anything(runs: Path, shrink: Make) -> None:
    (runs / "broken").mkdir()
    (runs / "broken" / "record.json").write_text("{")
    ended = shrink("store", "gc", "--runs", runs, "--unreachable", "--yes")
    assert ended.code == 2
    assert "broken/record.json" in ended.err
    assert len(Store(runs / "store").entries()) == 3


@pytest.mark.parametrize("name", ["model", "parts.json", "manifest.json"])
def test_verify_names_what_is_damaged_and_exits_1(runs: Path, shrink: Make, name: str) -> None:
    whole = shrink("store", "verify", "--runs", runs)
    assert (whole.code, whole.out) == (0, "3 results, 0 damaged\n")
    (runs / "store" / "entries" / "2a" / name).write_text("x")
    ended = shrink("store", "verify", "--runs", runs)
    assert ended.code == 1
    assert ended.out.startswith("2a: ")
    assert name in ended.out
    assert ended.out.endswith("3 results, 1 damaged\n")
    assert (runs / "store" / "entries" / "2a").is_dir()
    assert {row["key"] for row in listing(Store(runs / "store"), runs)} == {"1a", "2a", "3a"}


def test_show_prints_what_a_key_was_made_of(runs: Path, shrink: Make) -> None:
    ended = shrink("store", "show", "2", "--runs", runs)
    assert (ended.code, json.loads(ended.out)) == (0, {"stage": "s2"})


@pytest.mark.parametrize(("key", "count"), [("9", 0), ("", 3)])
def test_a_key_must_be_that_of_one_entry(runs: Path, key: str, count: int) -> None:
    with pytest.raises(ConfigError, match=f"{count} entries begin with {key}"):
        one(Store(runs / "store"), key)


@pytest.mark.parametrize("words", [["list"], ["verify"], ["gc", "--unreachable", "--yes"]])
def test_a_store_that_is_not_there_yet_is_empty(tmp_path: Path, shrink: Make, words: list[str]) -> None:
    ended = shrink("store", *words, "--runs", tmp_path)
    assert ended.code == 0
    assert "0 results" in ended.out
