"""Which tensors are stored together: those whose values together take few bits, for each decoder costs bytes too."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np
import onnx

from stages.quantize.packing.codes.digits import LARGE
from stages.quantize.packing.codes.encodings import Integers, estimate, values_of

DECODER_BYTES = 250
"""What a decoder takes, about: nodes, their constants and what a tensor has beside its numbers."""


@dataclass(frozen=True)
class Weight:
    """A tensor of integers.

    Args:
        name: in the graph.
        dims: its shape.
        integers: (N,), row by row.
    """

    name: str
    dims: tuple[int, ...]
    integers: Integers = field(repr=False)

    @classmethod
    def of(cls, tensor: onnx.TensorProto) -> "Weight":
        """The weight that an initializer is."""
        return cls(tensor.name, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).reshape(-1))


@dataclass(frozen=True)
class Group:
    """Tensors of one type that are stored as one.

    Args:
        weights: them.
        values: a bit for each value that they have.
        filled: how many of their integers are not zero.
    """

    weights: tuple[Weight, ...]
    values: int
    filled: int

    @classmethod
    def of(cls, weight: Weight) -> "Group":
        """The group of one weight."""
        values = sum(1 << int(value) + 128 for value in values_of(weight.integers))
        return cls((weight,), values, int(np.count_nonzero(weight.integers)))

    def __add__(self, other: "Group") -> "Group":
        return Group(self.weights + other.weights, self.values | other.values, self.filled + other.filled)

    @cached_property
    def count(self) -> int:
        """How many integers they have."""
        return sum(prod(weight.dims) for weight in self.weights)

    def joins(self, other: "Group") -> bool:
        """Whether they may be stored together: of one type, and not large, which would take memory to cut apart."""
        same = self.weights[0].integers.dtype == other.weights[0].integers.dtype
        return same and max(self.count, other.count) < LARGE

    def bytes(self, opset: int) -> float:
        """What it takes, about, in a graph of an opset."""
        return DECODER_BYTES + estimate(self.filled, self.count, self.values.bit_count(), opset)


def grouped(weights: Iterable[Weight], opset: int) -> list[Group]:
    """The weights in groups that take the fewest bytes, about; without those that take no fewer than they do now.

    Many small tensors pay for a decoder together alone, and one that pays for none spoils a group whose decoder it
    shares: the groups are made with and without decoders for what does not pay for one, and the better ones are taken.
    """
    singles = sorted(map(Group.of, weights), key=lambda group: -group.values.bit_count())
    costs: list[Callable[[Group], float]] = [
        lambda group: group.bytes(opset),
        lambda group: min(group.bytes(opset), group.count),
    ]
    ways = [[group for group in _joined(singles, cost) if group.bytes(opset) < group.count] for cost in costs]
    return max(ways, key=lambda groups: sum(group.count - group.bytes(opset) for group in groups))


def _joined(singles: Iterable[Group], cost: Callable[[Group], float]) -> list[Group]:
    """Each joined with the group where that saves the most."""
    groups: list[Group] = []
    for group in singles:
        gains = [
            (cost(group) + cost(other) - cost(group + other), place)
            for place, other in enumerate(groups)
            if group.joins(other)
        ]
        gain, place = max(gains, default=(0.0, 0))
        if gain > 0:
            groups[place] += group
        else:
            groups.append(group)
    return groups
