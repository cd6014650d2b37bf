"""A key that is held while its entry in the store is read, or made first."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StageError, blame
from pipeline.records.journal import Journal
from pipeline.run.store.key import Parts, digest
from pipeline.run.store.store import Store

LOG = logging.getLogger("shrinkline")


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
        self.journal.write("begin", place=self.place, key=self.key)
        LOG.info("%s", self.place)
        with blame(StageError, self.place), self.store.commit(self.key, self.parts) as folder:
            yield folder
        self.journal.write("made", place=self.place, key=self.key)


@contextmanager
def claimed(store: Store, journal: Journal, place: str, parts: Parts) -> Iterator[Claim]:
    """Hold the key of these parts; its work folder is kept where an error ends the block."""
    key = digest(parts)
    with store.claim(key, place) as work:
        cached = store.find(key) is not None
        if cached:
            journal.write("reused", place=place, key=key)
            LOG.info("%s: as computed before", place)
        yield Claim(store, journal, place, parts, key, work, cached)
        store.done(key)
