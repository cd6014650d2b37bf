"""Content-addressed results: nothing is computed twice, and what is there is whole.

    store/entries/KEY/   a result: its files, parts.json (what the key was made of), manifest.json (a digest a file),
                         read.json (what users' code read while it was made, and had not read before)
    store/locks/KEY      the kernel's lock: whoever dies lets go of it
    store/work/KEY/      the folder of a stage that runs, or ran until it was killed: its checkpoints are found again
    store/corrupt/       entries whose files no longer match their manifest

An entry is written beside its place, synced, and renamed: it is there whole or not at all. Its digests are verified at
every reuse.
"""

import gc
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.base.files import file_digest, files_below, locked, read_json, whole_folder
from pipeline.errors import ConfigError, LockTimeoutError, StageError, blame
from pipeline.records.journal import Journal
from pipeline.run.store.changes import Parts, changed
from pipeline.run.store.key import digest

LOG = logging.getLogger("shrinkline")

MANIFEST, PARTS, RESULT, READ = "manifest.json", "parts.json", "result.json", "read.json"


@dataclass(frozen=True)
class Entry:
    """A committed result."""

    path: Path
    parts: Parts

    @property
    def key(self) -> str:
        """The key it is kept under."""
        return self.path.name

    @property
    def read(self) -> Parts:
        """What users' code read only while it was made; see `Keys.read_late`."""
        file = self.path / READ
        return dict(json.loads(file.read_text())) if file.is_file() else {}

    def size_bytes(self) -> int:
        """Bytes of its files."""
        return sum(file.stat().st_size for file in files_below(self.path))

    def used(self) -> datetime:
        """When it was made or last reused."""
        manifest = self.path / MANIFEST
        return datetime.fromtimestamp((manifest if manifest.exists() else self.path).stat().st_mtime, UTC)


class Store:
    """The results below one folder.

    Args:
        root: the folder.
        lock_timeout: seconds to wait for another process that makes the same result; None waits for ever.
        stop: raises where waiting is to end.
    """

    def __init__(self, root: Path, lock_timeout: float | None = None, stop: Callable[[], None] = lambda: None) -> None:
        self.root, self.lock_timeout, self.stop = root, lock_timeout, stop

    def path(self, key: str) -> Path:
        """Where the entry of a key lies, or will."""
        return self.root / "entries" / key

    def find(self, key: str) -> Entry | None:
        """The entry of a key, verified; one that does not match its manifest is put aside with a warning."""
        path = self.path(key)
        if not path.is_dir():
            return None
        if problems := verify(path):
            aside = self.root / "corrupt" / f"{key}-{time.time_ns()}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            path.rename(aside)
            LOG.warning("a stored result is damaged (%s) and will be made again; it is kept in %s", problems[0], aside)
            return None
        with suppress(PermissionError):  # another user's, in a store that is shared
            os.utime(path / MANIFEST)
        return Entry(path, json.loads((path / PARTS).read_text()))

    def peek(self, key: str) -> Entry | None:
        """The entry of a key, verified, for looking only: it is neither marked as used nor put aside."""
        path = self.path(key)
        return None if verify(path) else Entry(path, json.loads((path / PARTS).read_text()))

    @contextmanager
    def commit(self, key: str, parts: Parts) -> Iterator[Path]:
        """A folder to fill; what the block puts there is kept, all of it or nothing. The key must be claimed."""
        path = self.path(key)
        temporary = path.with_name(f".{key}")  # no one else's, or left by one who was killed
        shutil.rmtree(temporary, ignore_errors=True)
        with whole_folder(path, temporary):
            yield temporary
            (temporary / PARTS).write_text(json.dumps(parts, indent=2, sort_keys=True) + "\n")
            digests = {str(file.relative_to(temporary)): file_digest(file) for file in files_below(temporary)}
            (temporary / MANIFEST).write_text(json.dumps(digests, indent=2) + "\n")

    @contextmanager
    def claim(self, key: str, what: str) -> Iterator[Path]:
        """Hold the lock of a key and give its work folder; waits for whoever holds it, and says for whom.

        Raises:
            LockTimeoutError: another process held it for longer than the time-out.
        """
        lock = self.root / "locks" / key
        lock.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if not stack.enter_context(locked(lock, timeout=0)):
                LOG.info("%s: waiting for %s, which makes the same result", what, _holder(lock))
                if not stack.enter_context(locked(lock, self.lock_timeout, self.stop)):
                    problem = f"{_holder(lock)} still makes the same result after {self.lock_timeout:g} s"
                    raise LockTimeoutError(problem, where=what, fix="Wait for it, or raise --lock-timeout")
            lock.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            work = self.root / "work" / key
            work.mkdir(parents=True, exist_ok=True)
            yield work

    def done(self, key: str) -> None:
        """Remove the work folder of a key, once its result is kept."""
        shutil.rmtree(self.root / "work" / key, ignore_errors=True)

    def drop(self, key: str) -> None:
        """Remove the entry of a key, whole or not at all. The key must be claimed."""
        path = self.path(key)
        aside = path.with_name(f".{key}")
        shutil.rmtree(aside, ignore_errors=True)
        if path.exists():
            path.rename(aside)
            shutil.rmtree(aside)

    def entries(self) -> list[Entry]:
        """All entries, not verified, the latest used first."""
        entries = [Entry(path, _parts(path)) for path in (self.root / "entries").glob("[!.]*")]
        return sorted(entries, key=Entry.used, reverse=True)

    def nearest(self, parts: Parts) -> Entry | None:
        """The entry of the same stage that shares the most parts."""
        same = [entry for entry in self.entries() if entry.parts["stage"] == parts["stage"]]
        return max(same, key=lambda entry: sum(entry.parts.get(k) == part for k, part in parts.items()), default=None)

    def sweep(self) -> None:
        """Remove what killed processes left while they filled or removed an entry; of one that lives it stays."""
        for left in (self.root / "entries").glob(".*"):
            with locked(self.root / "locks" / left.name.removeprefix("."), timeout=0) as is_left:
                if is_left:
                    shutil.rmtree(left)

    def remove(self, entry: Entry) -> None:
        """Remove an entry, whole or not at all; under its lock, so that nothing disappears while it is read."""
        with self.claim(entry.key, f"removing {entry.key[:12]}"):
            self.drop(entry.key)
            self.done(entry.key)


@dataclass(frozen=True)
class Claim:
    """A key that is held, whether its entry was there, and a folder that is found again where the process is killed."""

    store: Store
    journal: Journal
    place: str
    parts: Parts
    key: str
    work: Path
    cached: bool

    @property
    def path(self) -> Path:
        """Where the entry lies, once it is there."""
        return self.store.path(self.key)

    @contextmanager
    def filling(self) -> Iterator[Path]:
        """A folder that becomes the entry where nothing is raised; an error is blamed on the place."""
        gc.enable()  # which rests while everything is imported and read, see `uncollected`
        self.journal.write("begin", place=self.place, key=self.key)
        LOG.info("%s", self.place)
        with blame(StageError, self.place), self.store.commit(self.key, self.parts) as folder:
            yield folder
        self.journal.write("made", place=self.place, key=self.key)


@contextmanager
def claimed(
    store: Store, journal: Journal, place: str, parts: Parts, now: Callable[[Parts], Parts] = lambda read: read
) -> Iterator[Claim]:
    """Hold the key of these parts; its work folder is kept where an error ends the block.

    Args:
        store, journal, place: where it is kept, told, and made.
        parts: of the key.
        now: what was read only while an entry was made -> the same as it is today; where that differs it is stale.
    """
    key = digest(parts)
    with store.claim(key, place) as work:
        entry = store.find(key)
        if entry and (why := changed(entry.read, now(entry.read))):
            LOG.info("%s: what it read while it ran has changed: %s", place, "; ".join(why))
            store.drop(key)
            entry = None
        if cached := entry is not None:
            journal.write("reused", place=place, key=key)
            LOG.info("%s: as computed before", place)
        yield Claim(store, journal, place, parts, key, work, cached)
        store.done(key)


def verify(entry: Path) -> list[str]:
    """What is wrong with an entry's files: changed, missing or unexpected ones, or another key's.

    Raises:
        ConfigError: one cannot be read, which says nothing of what is in it.
    """
    try:
        expected: dict[str, Any] = read_json(entry / MANIFEST)
        if not isinstance(expected, dict):
            return [f"{MANIFEST} is not a mapping"]
        files = [file for file in files_below(entry) if file != entry / MANIFEST]
        digests = {str(file.relative_to(entry)): file_digest(file) for file in files}
        for name in set(expected) - digests.keys():  # what lies in a folder that cannot be read is not listed
            with suppress(FileNotFoundError, NotADirectoryError, ValueError):
                (entry / name).stat()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
        return [f"{MANIFEST}: {error}"]
    except OSError as error:
        fix = "It may be whole: let this user read it, or keep results elsewhere with --runs"
        problem = f"a stored result cannot be read: {error.strerror}"
        raise ConfigError(problem, where=str(error.filename or entry), fix=fix) from None
    names = sorted(digests.keys() | expected.keys())
    problems = [f"{name} is not what was written" for name in names if digests.get(name) != expected.get(name)]
    if not problems and digest(_parts(entry)) != entry.name:
        return [f"{PARTS} is of another key"]
    return problems


def _holder(lock: Path) -> str:
    return lock.read_text() or "another process"


def _parts(entry: Path) -> Parts:
    """What its key was made of; a stage called "damaged" where that cannot be read."""
    with suppress(OSError, ValueError):
        parts = read_json(entry / PARTS)
        if isinstance(parts, dict) and isinstance(parts.get("stage"), str):
            return parts
    return {"stage": "damaged"}
