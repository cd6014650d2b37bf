"""The store: what it gives is what was put in, whole, by whoever came first."""

import errno
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.base import files
from pipeline.base.files import files_below, link
from pipeline.errors import ConfigError, LockTimeoutError, StageError
from pipeline.records import journal
from pipeline.records.record import Record
from pipeline.run.store.key import digest
from pipeline.run.store.store import Store, verify
from pipeline.runner import run
from tests.aliases import Logs, Make
from tests.forked import PATIENCE, SERVER, exit_code, start
from tests.pipeline.conftest import quick_run
from tests.users import stage_file

PARTS: dict[str, Any] = {"stage": "mine", "seed": 0}
K = digest(PARTS)


def write(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_bytes(bytes(range(256)))
    (folder / "model" / "manifest.json").write_text("{}")  # a stage's own file may be called as ours
    (folder / "result.json").write_text('{"a": 1}\n')


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    with made.claim(K, "x"), made.commit(K, PARTS) as folder:
        write(folder)
    return made


def flipped(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


FILES = ["manifest.json", "model/manifest.json", "model/weights", "parts.json", "result.json"]


def test_a_committed_entry_is_found_with_its_parts_and_files(store: Store) -> None:
    found = store.find(K)
    assert (found.key, found.parts) == (K, PARTS)
    assert [str(file.relative_to(found.path)) for file in files_below(found.path)] == FILES
    assert (found.path / "model" / "weights").read_bytes() == bytes(range(256))
    assert store.find("other") is None


@pytest.mark.parametrize("name", FILES)
def test_a_bit_that_flipped_in_any_file_is_always_found(store: Store, name: str) -> None:
    path = store.root / "entries" / K / name
    for bit in range(0, 8 * path.stat().st_size, 29):
        flipped(path, bit)
        assert verify(path.parents[name.count("/")]) != [], bit
        flipped(path, bit)
    assert store.find(K) is not None


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "flipped": lambda path: flipped(path, 9),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "removed": lambda path: path.unlink(),
    "extra": lambda path: path.with_name("extra").write_text(""),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_entry_is_put_aside_with_a_warning(store: Store, caplog: Logs, name: str, damage: str) -> None:
    DAMAGE[damage](store.root / "entries" / K / name)
    assert store.peek(K) is None
    assert [entry.key for entry in store.entries()] == [K]  # can still be listed
    assert store.find(K) is None
    (aside,) = (store.root / "corrupt").iterdir()
    assert aside.name.startswith(f"{K}-")
    assert "is damaged" in caplog.text
    assert store.entries() == []
    with store.claim(K, "x"), store.commit(K, PARTS) as folder:
        write(folder)
    assert store.find(K) is not None


def test_a_commit_whose_writing_fails_leaves_nothing(store: Store) -> None:
    with suppress(StageError), store.claim("j", "x"), store.commit("j", PARTS) as folder:
        write(folder)
        raise StageError("no")
    assert store.find("j") is None
    assert [path.name for path in (store.root / "entries").iterdir()] == [K]


def test_linked_files_live_on_when_their_entry_is_removed(store: Store, tmp_path: Path) -> None:
    found = store.find(K)
    link(found.path / "model", tmp_path / "mine")
    store.remove(found)
    store.remove(found)  # another process may have been first
    assert store.find(K) is None
    assert (tmp_path / "mine" / "weights").read_bytes() == bytes(range(256))


def test_an_entry_that_lies_under_the_key_of_another_is_damaged(store: Store) -> None:
    (store.root / "entries" / K).rename(store.root / "entries" / "0")
    assert verify(store.root / "entries" / "0") == ["parts.json is of another key"]
    assert store.find("0") is None


def test_the_nearest_entry_is_of_the_same_stage_and_shares_the_most(store: Store) -> None:
    others: dict[str, Any] = {"a": {"stage": "mine", "seed": 1}, "b": {"stage": "other", "seed": 2}}
    for key, parts in others.items():
        with store.claim(key, "x"), store.commit(key, parts) as folder:
            write(folder)
    assert store.nearest({"stage": "mine", "seed": 1, "new": 2}).key == "a"
    assert store.nearest({"stage": "third"}) is None


def hold(root: Path, held: Any) -> None:
    with Store(root).claim(K, "theirs"):
        held.set()
        signal.pause()


@pytest.fixture
def holder(store: Store) -> Iterator[Any]:
    """A process that holds the lock of K."""
    held = SERVER.Event()
    process = start(hold, store.root, held)
    assert held.wait(PATIENCE)
    yield process
    process.kill()
    process.join()


@pytest.mark.parametrize("seconds", [0, 0.2])
def test_a_lock_held_too_long_is_exit_75_and_says_who_holds_it(store: Store, holder: Any, seconds: float) -> None:
    patient = Store(store.root, lock_timeout=seconds)
    told = rf"process {holder.pid} on \S+ still makes the same"
    with pytest.raises(LockTimeoutError, match=told) as caught, patient.claim(K, "stages[0] (mine.py)"):
        pass
    assert (caught.value.exit_code, caught.value.where) == (75, "stages[0] (mine.py)")


def test_the_lock_of_another_key_is_free(store: Store, holder: Any) -> None:
    with Store(store.root, lock_timeout=0).claim("other", "x") as work:
        assert work.is_dir()


def test_the_lock_of_a_killed_process_is_free_at_once(store: Store, holder: Any) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with Store(store.root, lock_timeout=0).claim(K, "x"):
        pass


def test_nothing_is_removed_while_another_process_reads_it(store: Store, holder: Any) -> None:
    found = store.find(K)
    assert found is not None
    with pytest.raises(LockTimeoutError, match="still makes"):
        Store(store.root, lock_timeout=0).remove(found)
    assert store.find(K) is not None


COUNTS = stage_file(
    """
    with (FOLDER / "calls").open("a") as file:
        file.write(f"{self.number} ")
    time.sleep(self.wait)
    if (FOLDER / "fail").exists():
        raise ValueError("not today")
    module = copy.deepcopy(model.module)
    module[1].bias.data += self.number
    return replace(model, module=module)
    """,
    "number: int\nwait: float = 0.0",
)


def counting(*stages: str) -> str:
    lines = "".join(f"  - {{use: counts.py, {stage}}}\n" for stage in stages)
    return f"task: {{use: data.py}}\nmodel: {{use: models.py:flat}}\nstages:\n{lines}"


def calls(chain: Path) -> Counter[str]:
    return Counter((chain.parent / "calls").read_text().split())


def test_a_failure_is_never_kept(quick: Make, tmp_path: Path) -> None:
    chain = quick(counting("number: 1", "number: 2"), **{"counts.py": COUNTS, "fail": ""})
    for _ in range(2):
        with pytest.raises(StageError, match="not today"):
            run(chain, runs=tmp_path / "runs", track=False)
    assert calls(chain) == {"1": 2}
    (chain.parent / "fail").unlink()
    run(chain, runs=tmp_path / "runs", track=False)
    assert calls(chain) == {"1": 3, "2": 1}


def test_two_runs_of_one_config_at_once_make_each_stage_once(quick: Make, tmp_path: Path) -> None:
    chain = quick(counting("number: 1, wait: 1", "number: 2, wait: 0.3"), **{"counts.py": COUNTS})
    barrier = SERVER.Barrier(2)
    started = [start(quick_run, chain, tmp_path / "runs", barrier) for _ in range(2)]
    for process in started:
        process.join(PATIENCE)
    assert [process.exitcode for process in started] == [0, 0]
    assert calls(chain) == {"1": 1, "2": 1}
    folders = [path.parent for path in (tmp_path / "runs").glob("*/record.json")]
    events = Counter(
        (event["event"], event["key"])
        for folder in folders
        for event in journal.read(folder / "journal.jsonl")
        if event["event"] in ("made", "reused")
    )
    assert len(folders) == 2
    assert len(events) == 10  # 2 stages, and the measuring of 3 models
    assert set(events.values()) == {1}
    first, second = (Record.load(folder) for folder in folders)
    assert [stage.digest for stage in first.stages] == [stage.digest for stage in second.stages]
    logs = [(folder / "run.log").read_text() for folder in folders]
    waited = [log for log in logs if "stages[0] (counts.py): waiting for process" in log]
    assert len(waited) == 1
    assert any(f"waiting for process {process.pid} on" in waited[0] for process in started)


def test_a_run_that_waits_for_too_long_ends_and_says_for_whom(quick: Make, tmp_path: Path) -> None:
    chain = quick(counting("number: 1, wait: 600"), **{"counts.py": COUNTS})
    slow = start(quick_run, chain, tmp_path / "runs")
    while not (chain.parent / "calls").exists():
        assert slow.is_alive()
        time.sleep(0.01)
    with pytest.raises(LockTimeoutError, match=rf"stages\[0\] \(counts.py\): process {slow.pid} on"):
        run(chain, runs=tmp_path / "runs", track=False, lock_timeout=0)
    slow.kill()
    slow.join()


def test_two_configs_with_three_shared_stages_make_those_once(quick: Make, tmp_path: Path) -> None:
    shared = ["number: 1", "number: 2", "number: 3"]
    first = quick(counting(*shared, "number: 4"), **{"counts.py": COUNTS})
    second = first.with_name("second.yaml")
    second.write_text(counting(*shared, "number: 5"))
    before = run(first, runs=tmp_path / "runs", track=False)
    after = run(second, runs=tmp_path / "runs", track=False)
    assert calls(first) == {"1": 1, "2": 1, "3": 1, "4": 1, "5": 1}
    assert [stage.cached for stage in before.stages] == [False] * 4
    assert [stage.cached for stage in after.stages] == [True, True, True, False]


def test_a_bit_that_flipped_in_any_file_of_a_run_is_always_found(quick: Make, tmp_path: Path) -> None:
    run(quick(), runs=tmp_path / "runs", track=False)
    store = Store(tmp_path / "runs" / "store")
    tried = 0
    for entry in store.entries():
        for file in files_below(entry.path):
            flipped(file, tried % (8 * file.stat().st_size))
            assert store.find(entry.key) is None, file
            (aside,) = (store.root / "corrupt").iterdir()
            aside.rename(entry.path)
            flipped(file, tried % (8 * file.stat().st_size))
            assert store.find(entry.key) is not None, file
            tried += 1
    assert tried == 35  # 3 files each of 7 entries and of 3 models; 3 predictions and 2 deployed files


def again(chain: Path, runs: Path, whole: Record, caplog: Logs, file: Path, bit: int) -> None:
    """Flip a bit of a stored file and run again: told, and made as it was."""
    flipped(file, bit)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "shrinkline"):
        made = run(chain, runs=runs, track=False)
    assert "is damaged" in caplog.text, file
    assert [stage.digest for stage in made.stages] == [stage.digest for stage in whole.stages]
    assert [stage.score for stage in made.stages] == [stage.score for stage in whole.stages]


def test_a_run_makes_a_damaged_result_again(quick: Make, tmp_path: Path, caplog: Logs) -> None:
    chain = quick(counting("number: 1", "number: 2"), **{"counts.py": COUNTS})
    whole = run(chain, runs=tmp_path / "runs", track=False)
    weights = tmp_path / "runs" / "store" / "entries" / whole.stages[0].key / "model" / "weights.safetensors"
    again(chain, tmp_path / "runs", whole, caplog, weights, 999)
    assert calls(chain) == {"1": 2, "2": 1}


@pytest.mark.slow
def test_a_run_makes_each_result_with_a_damaged_file_again(quick: Make, tmp_path: Path, caplog: Logs) -> None:
    chain = quick()
    whole = run(chain, runs=tmp_path / "runs", track=False)
    for entry in Store(tmp_path / "runs" / "store").entries():
        for file in files_below(entry.path):
            again(chain, tmp_path / "runs", whole, caplog, file, 8 * (file.stat().st_size // 2))


@pytest.mark.parametrize("name", ["manifest.json", "weights"])
def test_what_may_not_be_read_is_an_error_of_its_own_and_nothing_is_put_aside(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(path: Path) -> Any:
        if path.name == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    read = files.read_json if name == "manifest.json" else files.file_digest
    monkeypatch.setattr(f"pipeline.run.store.store.{read.__name__}", refuse)
    for look in (store.find, store.peek):
        with pytest.raises(ConfigError, match=f"{name}: a stored result cannot be read: Permission denied"):
            look(K)
    monkeypatch.undo()
    assert store.find(K)
    assert not (store.root / "corrupt").exists()


def test_a_file_in_a_folder_that_may_not_be_listed_is_not_called_changed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: Any) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("pipeline.run.store.store.files_below", lambda _: [])
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ConfigError, match="cannot be read"):
        verify(store.root / "entries" / K)


@pytest.mark.parametrize("text", ["", "3", "{}", '{"stage": 3}', "\0"])
def test_an_entry_whose_parts_are_damaged_is_listed_as_such(store: Store, text: str) -> None:
    (store.path(K) / "parts.json").write_text(text)
    (entry,) = store.entries()
    assert entry.parts == {"stage": "damaged"}
    assert verify(entry.path) == ["parts.json is not what was written"]


@pytest.mark.parametrize("text", ["3", "null", "[]", '{"parts.json": 3}', '{"a\\u0000b": "x"}'])
def test_a_manifest_that_is_none_is_damage(store: Store, text: str) -> None:
    (store.path(K) / "manifest.json").write_text(text)
    assert verify(store.path(K))
    assert store.find(K) is None


def sweep(root: Path) -> None:
    Store(root).sweep()


def test_what_a_killed_process_left_is_swept_and_what_one_fills_is_not(store: Store) -> None:
    entries = store.root / "entries"
    (entries / ".left" / "model").mkdir(parents=True)
    with store.claim("filled", "x"), store.commit("filled", PARTS) as folder:
        assert exit_code(sweep, store.root) == 0
        assert folder.is_dir()
    assert sorted(path.name for path in entries.iterdir()) == sorted([K, "filled"])
