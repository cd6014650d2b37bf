"""This machine with some of its processors, and with less memory."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from annotated_types import MinLen
from pydantic import AfterValidator, Field, model_validator

from pipeline.base.formatting import bytes_text
from pipeline.errors import StageError
from pipeline.forms.sandbox.process import LIMITED
from stages.benchmark.hosts.here import Here
from stages.benchmark.hosts.host import Host, Machine, Size
from stages.benchmark.runners.loaded import Spec

THREADS = ("Resource temporarily unavailable", "can't start new thread", "pthread_create")
"""What there is to read where the stack of a thread was too much."""
LIMITING = Here("stages.benchmark.runners.hosts.limited")

Processors = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], MinLen(1), AfterValidator(lambda cpus: tuple(sorted({*cpus})))
]


class Constrained(Host):
    """A CPU set, a limit of memory, or both."""

    cpus: Processors | None = Field(
        None, description="processors that a process may be put on, by the numbers that the system has"
    )
    memory: Size | None = Field(None, description="bytes that a process may hold at most, such as 256 MB")

    @model_validator(mode="after")
    def _limits(self) -> Self:
        if self.cpus is None and self.memory is None:
            raise ValueError("`cpus`, `memory`, or `ssh` for another machine")
        return self

    @property
    def name(self) -> str:
        """Such as "constrained: cpus 0,1, 256.0 MB"."""
        parts = [f"cpus {','.join(map(str, self.cpus))}"] if self.cpus else []
        parts += [bytes_text(self.memory).replace(".0 ", " ")] if self.memory else []
        return f"constrained: {', '.join(parts)}"

    def missing(self, threads: int) -> str | None:
        """Why it cannot be: the system has no such limits or processors, or there are more threads than those."""
        if not hasattr(os, "sched_getaffinity"):
            return "only Linux has limits for it"
        there = os.sched_getaffinity(0)
        if absent := {*(self.cpus or ())} - there:
            return f"this process may run on the processors {_numbers(there)}, and not on {_numbers(absent)}"
        if self.cpus and threads > len(self.cpus):
            return f"`threads` has {threads}, which is more than its {len(self.cpus)} processors"
        return None

    def machine(self) -> Machine:
        """What runs processes within these limits."""
        return Limited(self)


@dataclass
class Limited(Machine):
    """Runs processes here within limits, which they are under before they import anything.

    What a process allocates is limited by the system (RLIMIT_DATA: pages of its own that it can write, though it may
    not, such as the stacks of threads; no code and no files that are mapped), and what it held at most, all in all, is
    looked at afterwards.
    """

    host: Constrained

    def __post_init__(self) -> None:
        self.name = self.host.name

    def run(self, spec: Spec, folder: Path, did: str) -> dict[str, Any]:
        """What a process tells; StageError also where it needs more memory than there is. See `Machine.run`."""
        limits = {"cpus": self.host.cpus, "memory_bytes": self.host.memory}
        try:
            content = LIMITING.run({**spec, "limits": limits}, folder, did)
        except StageError as error:
            if self.host.memory and any(word in error.found for word in LIMITED + THREADS):
                raise self._too_much(error.found) from None
            raise
        peak = (content.get("memory") or {}).get("peak_bytes", 0)
        if self.host.memory and peak > self.host.memory:
            raise self._too_much(f"the process that {did} held {bytes_text(peak)}")
        return content

    def _too_much(self, what: str) -> StageError:
        return StageError(f"it needs more memory than there is ({self.name}): {what}")


def _numbers(cpus: set[int]) -> str:
    return ", ".join(map(str, sorted(cpus)))
