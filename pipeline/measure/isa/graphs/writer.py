"""Nodes and constants that are added to a graph."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

PREFIX = "isa"


class Writer:
    """Adds nodes to a list of them, and constants to a graph; what it makes is named by numbers.

    Args:
        graph: gets the constants; all graphs inside it see them.
        opset: of the standard operators.
    """

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self.graph, self.opset = graph, opset
        self.nodes: list[onnx.NodeProto] = []
        self.count = 0

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """The name of what an operator makes of others; `output`, where it is given."""
        name = output or self._name()
        self.nodes.append(onnx.helper.make_node(operator, inputs, [name], **attributes))
        return name

    def quantized(self, value: str) -> list[str]:
        """The names of integers, scale and zero point of a value whose range is measured."""
        names = [self._name() for _ in range(3)]
        self.nodes.append(onnx.helper.make_node("DynamicQuantizeLinear", [value], names))
        return names

    def constant(self, value: NDArray[Any]) -> str:
        """The name of a constant."""
        name = self._name()
        self.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, *values: int) -> str:
        """The name of a constant list of int64, as shapes and places are."""
        return self.constant(np.array(values, np.int64))

    def cast(self, value: str, kind: int) -> str:
        """A value as another type, such as TensorProto.FLOAT."""
        return self.add("Cast", value, to=kind)

    def total(self, value: str) -> str:
        """The sum of all of a value, as one float64 (1,)."""
        whole = self.add("Reshape", self.cast(value, TensorProto.DOUBLE), self.integers(-1))
        return self.add("ReduceSum", whole, keepdims=1)

    def _name(self) -> str:
        self.count += 1
        return f"{PREFIX}.{self.count}"
