"""What a pattern says."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pipeline.measure.kernels.facts import Cpu, Facts, Node


class Alarm(NamedTuple):
    """Nodes of which a pattern is known, why they are slow, and what to do."""

    pattern: str
    nodes: Sequence[Node]
    why: str
    remedy: str


Pattern = Callable[[Facts, Cpu], Iterator[Alarm]]
