"""A model that a runtime has loaded, and how arrays pass between processes; imports no more than numpy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Spec = dict[str, Any]
"""What a process is told; see `stages.benchmark.runners.child`."""

Arrays = dict[str, Any]
"""Arrays of numpy by the name of an input or an output."""

Step = Callable[[], Any]
"""One inference: what is timed."""


@dataclass(frozen=True)
class Loaded:
    """What `load(spec)` of a runner gives.

    Args:
        prepare: (inputs) -> step, one inference of these inputs; it returns what the runtime returns.
        answers: (what a step returned) -> outputs by name, which the next step leaves as they are.
        description: `version`, `execution_provider`, and `threads` and `precision` as they really are, as far as the
            runtime tells them.
    """

    prepare: Callable[[Arrays], Step]
    answers: Callable[[Any], Arrays]
    description: dict[str, Any]


def write_batches(batches: Sequence[Arrays], path: Path) -> None:
    """Write batches of arrays into one .npz, each array as PLACE/NAME."""
    np.savez(path, **{f"{i}/{name}": value for i, batch in enumerate(batches) for name, value in batch.items()})


def read_batches(path: Path) -> list[Arrays]:
    """What `write_batches` wrote."""
    batches: dict[str, Arrays] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            place, _, name = key.partition("/")
            batches.setdefault(place, {})[name] = arrays[key]
    return list(batches.values())
