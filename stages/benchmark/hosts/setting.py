"""The type of `on:` of a runtime."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from stages.benchmark.hosts.constrained import Constrained
from stages.benchmark.hosts.ssh import Ssh


def _kind(value: Any) -> str:
    is_far = "ssh" in value if isinstance(value, dict) else isinstance(value, Ssh)
    return "device" if is_far else "constrained"


On = Annotated[Annotated[Constrained, Tag("constrained")] | Annotated[Ssh, Tag("device")], Discriminator(_kind)]
"""Told apart by `ssh`."""
