"""The default database of MLflow: there whole or not at all, and reached whatever its folder is called."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import mkdtemp

from pipeline.base.files import scratch, whole
from pipeline.report.mlflow.address import FILE, sqlite_uri

LOG = logging.getLogger("shrinkline")


class Database:
    """`mlflow.db` in a folder of runs.

    Args:
        runs: the folder, which is there.
    """

    def __init__(self, runs: Path) -> None:
        self.path = runs.resolve() / FILE
        self.folder = self.path.parent
        if sqlite_uri(self.folder) != f"sqlite:///{self.folder}":
            # MLflow makes the folder of a path as the URI spells it, which would be another one, beside it.
            self.folder = Path(mkdtemp(dir=scratch())) / "runs"
            self.folder.symlink_to(self.path.parent, target_is_directory=True)

    @property
    def uri(self) -> str:
        """What MLflow reaches it by."""
        return f"sqlite:///{self.folder / FILE}"

    def make(self) -> None:
        """Make it where there is none, or one that was left while it was made; a lock keeps others out."""
        if self.path.exists():
            if _is_whole(self.path):
                return
            LOG.warning("%s was left before it was whole, and holds nothing: it is made anew", self.path)
        with whole(self.path) as temporary:
            _remove(temporary)
            _fill(f"sqlite:///{self.folder / temporary.name}", (self.path.parent / "mlartifacts").as_uri())
            _remove(self.path)  # and what would be taken for changes to the new one


def _is_whole(path: Path) -> bool:
    """Whether MLflow came to the end of making it, which is its first experiment. Raises sqlite3.Error."""
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("select count(*) from sqlite_master where name = 'experiments'").fetchone()[0]
        return bool(tables and connection.execute("select count(*) from experiments").fetchone()[0])


def _fill(uri: str, artifacts: str) -> None:
    """Have MLflow make its tables, and its first experiment."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, artifacts).engine.dispose()  # which would go on writing to it


def _remove(path: Path) -> None:
    """Remove a database and what SQLite keeps beside it."""
    for name in (path.name, f"{path.name}-journal", f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
