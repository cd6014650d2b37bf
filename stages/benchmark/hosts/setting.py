"""The type of `on:` of a runtime."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from stages.benchmark.hosts.constrained import Constrained
from stages.benchmark.hosts.ssh import Ssh

EXPECTED = "a mapping with `ssh`, or with `cpus` or `memory`"


def _kind(value: Any) -> str | None:
    if not isinstance(value, dict | Constrained | Ssh):
        return None
    return "device" if isinstance(value, Ssh) or (isinstance(value, dict) and "ssh" in value) else "constrained"


On = Annotated[
    Annotated[Constrained, Tag("constrained")] | Annotated[Ssh, Tag("device")],
    Discriminator(_kind, custom_error_type="host", custom_error_message=EXPECTED),
]
"""Told apart by `ssh`."""
