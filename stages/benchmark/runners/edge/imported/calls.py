"""A node of a graph in one run, as the operators see it."""

from typing import Any

import numpy as np
import onnx
from torch import Tensor

from stages.benchmark.runners.edge.imported.integers import signed
from stages.benchmark.runners.edge.imported.weights import Weight


class Call:
    """One node in one run: its arguments, its attributes.

    Args:
        network: whose node it is, see `network.Network`.
        node: it.
        values: that are computed.
    """

    def __init__(self, network: Any, node: onnx.NodeProto, values: dict[str, Tensor]) -> None:
        self.network, self.node, self.values = network, node, values
        self.attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}

    def __len__(self) -> int:
        return len(self.node.input)

    def has(self, place: int) -> bool:
        """Whether there is an argument."""
        return place < len(self) and bool(self.node.input[place])

    def __getitem__(self, place: int) -> Tensor:
        value: Tensor = self.network.value(self.node.input[place], self.values)
        return value

    def get(self, place: int) -> Tensor | None:
        """An argument that may be left out."""
        return self[place] if self.has(place) else None

    def is_constant(self, place: int) -> bool:
        """Whether an argument is known before, and no integers that stand for floats."""
        return self.has(place) and self.node.input[place] in self.network.constants

    def weight(self, place: int) -> Weight | None:
        """An argument that is constant in integers."""
        weight: Weight | None = self.network.weights.get(self.node.input[place])
        return weight

    def table(self) -> Tensor:
        """The first argument; a constant in uint8 is moved to int8, for not every backend has those."""
        if not self.is_constant(0) or self.constant(0).dtype != np.uint8:
            return self[0]
        self.network.unsigned.add(self.node.output[0])
        codes, _ = signed(self.constant(0), np.zeros((), np.uint8))
        table: Tensor = self.network.buffer(f"{self.node.input[0]} moved", codes)
        return table

    def rank(self, place: int) -> int:
        """The number of axes of an argument."""
        weight = self.weight(place)
        return int(weight.codes.ndim) if weight else self[place].dim()

    def constant(self, place: int) -> Any:
        """An argument that is known before, as an array; None where it is left out."""
        return self.network.constants[self.node.input[place]] if self.has(place) else None

    def integers(self, place: int, name: str = "") -> list[int]:
        """Such an argument as integers, or the attribute that older operators have in its place."""
        array = self.constant(place)
        return [int(value) for value in (self.attributes.get(name, ()) if array is None else np.ravel(array))]

    def number(self, place: int, name: str = "", default: float | None = None) -> float | None:
        """The same of one number."""
        array = self.constant(place)
        return self.attributes.get(name, default) if array is None else float(np.ravel(array)[0])
