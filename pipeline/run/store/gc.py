"""What lies in the store, who uses it, and what may go."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.build.live.load import WEIGHTS
from pipeline.errors import ConfigError, blame
from pipeline.records.folder import load_events, load_run
from pipeline.records.record import Record
from pipeline.run.store.store import Entry, Store, verify

SECONDS_TO_BEGIN = 3600


def users(runs: Path) -> dict[str, list[str]]:
    """The runs that rest on each key: that had it when they ended, or when they were killed.

    Raises:
        ConfigError: a record cannot be read; what that run rests on is not known.
    """
    runs_by_key: dict[str, list[str]] = {}
    for record, events in _runs(runs):
        record_keys = [key for _, model in record.models for key in model.uses]
        for key in dict.fromkeys([*record_keys, *(event["key"] for event in events if event.get("key"))]):
            runs_by_key.setdefault(key, []).append(record.run)
    return runs_by_key


def unused_weights(runs: Path) -> list[Path]:
    """Weights of modules that were given from Python, of which no run's config has the name.

    Those of the last hour stay: a run that begins has no record yet. Raises ConfigError as `users`.
    """
    models: list[Any] = [record.config.get("model") or {} for record, _ in _runs(runs)]
    names = {Path(model.get("weights") or "").name for model in models}
    before = time.time() - SECONDS_TO_BEGIN
    files = sorted((runs / WEIGHTS).glob("*.safetensors"))
    return [file for file in files if file.name not in names and file.stat().st_mtime < before]


def _runs(runs: Path) -> Iterator[tuple[Record, list[dict[str, Any]]]]:
    """The record and the journal of each run. Raises ConfigError where one cannot be read."""
    for file in sorted(runs.glob("*/record.json")):
        with blame(ConfigError, str(file), fix="Remove the run folder, or repair it"):
            run = load_run(file.parent, ended=False), load_events(file.parent)
        yield run


def listing(store: Store, runs: Path) -> list[dict[str, Any]]:
    """Each entry's key, stage, bytes, when it was last used, and by which runs; the latest first."""
    used = users(runs)
    return [
        {
            "key": entry.key,
            "stage": entry.parts["stage"],
            "size_bytes": entry.size_bytes(),
            "used": entry.used().isoformat(timespec="seconds"),
            "runs": used.get(entry.key, []),
        }
        for entry in store.entries()
    ]


def one(store: Store, key: str) -> Entry:
    """The entry whose key begins like this. Raises ConfigError where there is none or more than one."""
    matches = [entry for entry in store.entries() if entry.key.startswith(key)]
    if len(matches) != 1:
        raise ConfigError(f"{len(matches)} entries begin with {key}", where="store", fix="See `shrink store list`")
    return matches[0]


def damaged(store: Store) -> dict[str, list[str]]:
    """What is wrong, by key, of the entries that do not match their manifest."""
    checked = {path.name: verify(path) for path in sorted((store.root / "entries").glob("[!.]*"))}
    return {key: problems for key, problems in checked.items() if problems}


def garbage(
    store: Store, runs: Path, *, older_than_days: float | None, keep_bytes: int | None, unreachable: bool
) -> list[Entry]:
    """The entries that may go: any that one of the given rules names.

    Args:
        store, runs: what is looked at.
        older_than_days: not used for so long.
        keep_bytes: the least recently used ones beyond so many bytes.
        unreachable: used by no run folder.
    """
    entries, used = store.entries(), users(runs)
    before = datetime.now(UTC) - timedelta(days=older_than_days or 0)
    total, chosen = 0, []
    for entry in entries:
        total += entry.size_bytes()
        too_old = older_than_days is not None and entry.used() < before
        too_much = keep_bytes is not None and total > keep_bytes
        if too_old or too_much or (unreachable and entry.key not in used):
            chosen.append(entry)
    return chosen
