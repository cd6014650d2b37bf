"""A model that a runtime has loaded, and how arrays pass between processes; imports no more than numpy."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

Spec = dict[str, Any]
"""What a process is told; see `stages.benchmark.runners.child`."""

Arrays = dict[str, Any]
"""Arrays of numpy by the name of an input or an output."""

Step = Callable[[], Any]
"""One inference: what is timed."""

MEMBER = ".npy"
"""What names of arrays in an .npz end with."""


@dataclass(frozen=True)
class Loaded:
    """What `load(spec)` of a runner gives.

    Args:
        prepare: (inputs) -> step, one inference of these inputs; it returns what the runtime returns.
        answers: (what a step returned) -> outputs by name, which the next step leaves as they are.
        description: `version`, `execution_provider`, and `threads` and `precision` as they really are, as far as the
            runtime tells them.
        concurrent: whether steps of several `prepare` may run at a time, each in a thread of its own.
    """

    prepare: Callable[[Arrays], Step]
    answers: Callable[[Any], Arrays]
    description: dict[str, Any]
    concurrent: bool = False


def write_batches(batches: Iterable[Arrays], path: Path) -> int:
    """Write batches of arrays into one .npz, each array as PLACE/NAME, and give their number; holds one at a time."""
    count = 0
    with ZipFile(path, "w") as file:
        for batch in batches:
            for name, value in batch.items():
                with file.open(f"{count}/{name}{MEMBER}", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(value), allow_pickle=False)
            count += 1
    return count


def read_batches(path: Path) -> Iterator[Arrays]:
    """What `write_batches` wrote, batch by batch."""
    with ZipFile(path) as file:
        for _, members in groupby(file.namelist(), lambda name: name.partition("/")[0]):
            yield {name.partition("/")[2].removesuffix(MEMBER): _read(file, name) for name in members}


def _read(file: ZipFile, name: str) -> Any:
    with file.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
