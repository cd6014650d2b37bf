"""Which host keys OpenSSH knows of a device; nothing is asked of it."""

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path


def known_keys(command: Sequence[str], file: Path | None) -> str | None:
    """The digest of the keys that a host is known by, None where there are none.

    Args:
        command: `ssh -G` with the host, which prints under what name and in which files it is looked up.
        file: the one where it is looked up, if there is one alone.
    """
    settings = dict(line.partition(" ")[::2] for line in _printed(command))
    name, port = settings.get("hostname", ""), settings.get("port", "22")
    place = settings.get("hostkeyalias") or (name if port == "22" else f"[{name}]:{port}")
    named = [path for whose in ("user", "global") for path in settings.get(f"{whose}knownhostsfile", "").split()]
    lines = [line for path in ([str(file)] if file else named) for line in _printed(_lookup(place, path))]
    # Behind a marker, such as @revoked, and the host's name are the key's type and the key.
    keys = sorted({" ".join(line.split()[1:4]) if line[0] == "@" else " ".join(line.split()[1:3]) for line in lines})
    return hashlib.sha256("\n".join(keys).encode()).hexdigest() if keys else None


def _lookup(place: str, path: str) -> list[str]:
    return ["ssh-keygen", "-F", place, "-f", path]


def _printed(command: Sequence[str]) -> list[str]:
    """The lines that a command prints, without remarks; none where it fails or is not installed."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return [line for line in ended.stdout.splitlines() if line and not line.startswith("#")]
