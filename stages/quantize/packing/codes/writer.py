"""What is added to a graph, piece by piece: nodes, and the tensors that they read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from stages.quantize.packing.codes.digits import Bytes

PREFIX = "packed."
"""Of all new names; it is lost when names become short."""


@dataclass
class Writer:
    """Nodes in order, and their tensors; equal constants are there once.

    Args:
        opset: of the graph.
    """

    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[onnx.TensorProto] = field(default_factory=list)
    constants: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)
    count: int = 0

    def name(self) -> str:
        """A new name."""
        self.count += 1
        return f"{PREFIX}{self.count}"

    def node(self, operator: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """The name of a node's output, which is new unless it is said."""
        output = to or self.name()
        self.nodes.append(onnx.helper.make_node(operator, inputs, [output], **attributes))
        return output

    def cast(self, value: str, kind: int, to: str = "") -> str:
        """The name of a value as another type of number."""
        output = to or self.name()
        self.nodes.append(onnx.helper.make_node("Cast", [value], [output], to=kind))
        return output

    def split(self, value: str, sizes: Sequence[int], to: Sequence[str] = ()) -> list[str]:
        """Names of the parts of a value along its first axis; of the value itself where it is one part."""
        names = [*to] or [self.name() for _ in sizes]
        if len(sizes) == 1 and not to:
            return [value]
        self.nodes.append(onnx.helper.make_node("Split", [value, self.constant(np.array(sizes))], names))
        return names

    def reshape(self, value: str, dims: Sequence[int], to: str = "") -> str:
        """The name of a value in another shape."""
        return self.node("Reshape", value, self.constant(np.array(dims, np.int64)), to=to)

    def constant(self, array: NDArray[Any]) -> str:
        """The name of an array that may be shared."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = self.tensor(array)
        return self.constants[key]

    def tensor(self, array: NDArray[Any]) -> str:
        """The name of an array."""
        self.tensors.append(onnx.numpy_helper.from_array(array, self.name()))
        return str(self.tensors[-1].name)

    def nibbles(self, packed: Bytes, dims: Sequence[int], kind: int) -> str:
        """The name of integers of 4 bits."""
        self.tensors.append(onnx.helper.make_tensor(self.name(), kind, dims, packed.tobytes(), raw=True))
        return str(self.tensors[-1].name)
