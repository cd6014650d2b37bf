"""Whether what runs are logged to answers: a server, or a database in a file."""

import os
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from pipeline.cli.doctor.finding import Finding, State
from pipeline.report.mlflow.address import FILE, URI, without_secrets

CONCERN = "tracking"
SECONDS = 3.0
LATER = "Runs go on without it; `shrink sync` logs them later"


def tracking(runs: Path, *, required: bool = False) -> Finding:
    """What MLFLOW_TRACKING_URI names, or the database below `runs`.

    Args:
        runs: the folder of runs.
        required: whether runs are to end with 7 where it is down.
    """
    down: State = "missing" if required else "warning"
    uri = os.environ.get(URI)
    if not uri:
        return database(runs.resolve() / FILE, down)
    scheme = uri.partition(":")[0] if "://" in uri else ""
    if scheme in ("http", "https"):
        return server(uri, down)
    if uri.startswith("sqlite:///"):
        return database(Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])), down)
    return Finding(CONCERN, "MLflow", "note", f"{scheme or 'a folder'}: not looked at, for it is no server and no file")


def server(uri: str, down: State) -> Finding:
    """Whether an MLflow server says that it is well, within three seconds."""
    scheme, _, rest = uri.partition("://")
    address = f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}".rstrip("/")  # without a password
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=SECONDS) as answer:
            return Finding(CONCERN, "MLflow", "ok", f"{address} answers: {answer.read(100).decode(errors='replace')}")
    except urllib.error.HTTPError as error:
        fix = "Look at MLFLOW_TRACKING_URI and what stands before the server"
        return Finding(CONCERN, "MLflow", down, f"{address}/health answers {error.code} {error.reason}", fix)
    except (OSError, ValueError) as error:  # refused, no such name, too late; or no URL at all
        reason = without_secrets(getattr(error, "reason", error))
        return Finding(CONCERN, "MLflow", down, f"{address} does not answer: {reason}", f"Start it. {LATER}")


def database(path: Path, down: State) -> Finding:
    """Whether a file can be written, or made, as a database."""
    path = path if path.is_absolute() else Path.cwd() / path
    if not path.exists():
        above = next(parent for parent in path.parents if parent.exists())
        if os.access(above, os.W_OK):
            return Finding(CONCERN, "MLflow", "ok", f"{path} will be made")
        return Finding(CONCERN, "MLflow", down, f"{path} cannot be made: {above} cannot be written", LATER)
    try:
        with closing(sqlite3.connect(path.resolve().as_uri() + "?mode=rw", timeout=SECONDS, uri=True)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # fails where it cannot be written; nothing is
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return Finding(CONCERN, "MLflow", down, f"{path}: {error}", f"Move it away or make it writable. {LATER}")
    return Finding(CONCERN, "MLflow", "ok", f"{path} can be written")
