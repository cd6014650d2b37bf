"""The Hugging Face hub: what a name could be, whether it is in the cache, and whether the hub can be reached."""

import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal

from pipeline.errors import ConfigError

Kind = Literal["datasets", "models"]

SECONDS = 3.0
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
YES = {"1", "true", "yes", "on"}


def check_reachable(name: str, kind: Kind, where: str) -> None:
    """Raise ConfigError where a name can only come from a hub that cannot be reached: libraries ask it for a minute.

    Args:
        name: on the hub, or a path, of which nothing is said.
        kind: what it is on the hub.
        where: for the error.
    """
    if Path(name).exists() or not could_be_name(name) or cached(name, kind) or switched_off():
        return
    try:
        ask(name, kind)
    except urllib.error.HTTPError:  # it answers, and the library tells what
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # libraries may have certificates of their own
            return
        problem = f"`{name}` is no folder here, is not in the cache, and {endpoint()} cannot be reached: {reason}"
        raise ConfigError(problem, where=where, fix="Give a folder, or fetch it where there is a network") from error


def could_be_name(name: str) -> bool:
    """Whether the hub could have it under this name: "name" or "owner/name", no path."""
    parts = name.split("/")
    return len(parts) <= 2 and all(parts) and not name.startswith((".", "~")) and " " not in name


def cached(name: str, kind: Kind) -> Path | None:
    """The folder of the hub's cache that has it, None where there is none."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    downloaded = hub / f"{kind}--{name.replace('/', '--')}" / "snapshots"
    if downloaded.is_dir() and any(downloaded.iterdir()):
        return downloaded.parent
    prepared = Path(os.environ.get("HF_DATASETS_CACHE", home / "datasets")) / name.replace("/", "___")
    return prepared if kind == "datasets" and prepared.is_dir() else None


def switched_off() -> bool:
    """Whether the environment says that the hub is not to be asked."""
    return any(os.environ.get(variable, "").lower() in YES for variable in OFFLINE)


def endpoint() -> str:
    """The address of the hub."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def ask(name: str, kind: Kind) -> None:
    """Raise HTTPError where the hub has no such name to show, OSError or ValueError where it does not answer."""
    with urllib.request.urlopen(f"{endpoint()}/api/{kind}/{name}", timeout=SECONDS):
        pass
