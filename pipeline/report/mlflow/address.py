"""Where MLflow is, by its variables or by default, and as it may be shown: what lets one in is in no text of ours."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

FILE = "mlflow.db"
URI = "MLFLOW_TRACKING_URI"
URIS = (URI, "MLFLOW_REGISTRY_URI")
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
HIDDEN = "***"
SHORTEST = 3
"""Characters of what is looked for in texts; less would be in many words. In a URI all of it is hidden."""
_USER = re.compile(r"(?<=://)[^/\s]*@")
_SECRET_KEY = re.compile("pass|pwd|secret|token|key|cred|sig", re.IGNORECASE)


def address(runs: Path) -> str:
    """What MLFLOW_TRACKING_URI says, as it may be shown; by default the database below the folder of runs."""
    return without_secrets(os.environ.get(URI) or sqlite_uri((runs / FILE).resolve()))


def sqlite_uri(path: Path) -> str:
    """Of a database in a file, for SQLAlchemy, to which `?` and `%` in it mean something else."""
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def without_secrets(text: object) -> str:
    """A text without the users, passwords and tokens that are in URIs, or in MLflow's variables."""
    open_text = str(text)
    for secret in sorted(set(_secrets()), key=len, reverse=True):
        open_text = open_text.replace(secret, HIDDEN)
    return _USER.sub(f"{HIDDEN}@", open_text)


def _secrets() -> Iterator[str]:
    """What lets one in, in each spelling that a library may print."""
    for secret in _parts():
        plain = unquote(secret)
        for spelling in (secret, plain, quote(plain), quote(plain, safe="")):
            if len(spelling) >= SHORTEST:
                yield spelling


def _parts() -> Iterator[str]:
    """The password of each URI, its user where that stands alone as a token does, and keys among its options."""
    yield from (os.environ.get(name, "") for name in SECRETS)
    for uri in (os.environ.get(name, "") for name in URIS):
        user, _, _ = uri.partition("://")[2].rpartition("@")
        name, _, password = user.partition(":")
        yield password or name
        yield from (value for key, value in parse_qsl(uri.partition("?")[2]) if _SECRET_KEY.search(key))
