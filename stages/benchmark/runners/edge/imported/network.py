"""A module that runs an ONNX graph node by node, as torch.export traces it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from stages.benchmark.runners.edge.imported import integers
from stages.benchmark.runners.edge.imported.calls import Call
from stages.benchmark.runners.edge.imported.operators import OPERATORS
from stages.benchmark.runners.edge.imported.weights import Weight


class Backend(NamedTuple):
    """What is made of a program, as far as it is written otherwise.

    Args:
        holds_integers: whether weights are in it as integers, or as floats that become integers there.
        ranges: whether inputs of products whose results stay in floats are to be rounded by their range.
    """

    holds_integers: bool
    ranges: bool


class Network(nn.Module):
    """Computes a graph whose constants are folded; (inputs in the order of their names) -> outputs in a tuple.

    Its constants become buffers when they are read first, so that it is to be run once before it is traced.

    Args:
        graph: whose operators are all known.
        names: of the inputs.
        backend: that the program is for.
    """

    def __init__(self, graph: onnx.GraphProto, names: Sequence[str], backend: Backend) -> None:
        super().__init__()
        self.backend = backend
        self.nodes, self.names = list(graph.node), list(names)
        self.results = [value.name for value in graph.output]
        self.constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.weights: dict[str, Weight] = {}
        self.held: dict[str, str] = {}
        self.unsigned: set[str] = set()  # values that the file has in uint8
        self.readers = Counter(name for node in self.nodes for name in node.input)
        self.readers.update(self.results)
        self.reading = {name: node for node in self.nodes for name in node.input}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs in their order."""
        values = dict(zip(self.names, inputs, strict=True))
        for node in self.nodes:
            result = OPERATORS[node.op_type](Call(self, node, values))
            results = result if isinstance(result, tuple) else (result,)
            values |= dict(zip(node.output, results, strict=False))
        return tuple(self.value(name, values) for name in self.results)

    def value(self, name: str, values: dict[str, Tensor]) -> Tensor:
        """A value that is computed or constant."""
        if name in values:
            return values[name]
        if name in self.weights:
            return self.floats(name, self.weights[name])
        return self.buffer(name, self.constants[name])

    def floats(self, name: str, weight: Weight) -> Tensor:
        """A weight by its integers, in floats."""
        codes, zero_point = integers.signed(weight.codes, weight.zero_point)
        held = self.buffer(f"{name}_codes", codes if self.backend.holds_integers else weight.floats)
        if np.size(weight.scale) == 1:
            step, zero = float(np.ravel(weight.scale)[0]), int(np.ravel(zero_point)[0])
            held = held if self.backend.holds_integers else integers.rounded(held, step, zero)
            return integers.dequantized(held, step, zero)
        scale = self.buffer(f"{name}_scale", weight.scale.astype(np.float32))
        zeros = self.buffer(f"{name}_zeros", np.broadcast_to(zero_point, scale.shape).astype(np.int64))
        if not self.backend.holds_integers:
            held = integers.rounded_by_channel(held, scale, zeros, weight.axis)
        return integers.dequantized_by_channel(held, scale, zeros, weight.axis)

    def buffer(self, name: str, array: Any) -> Tensor:
        """A constant that the program holds."""
        if name not in self.held:
            self.held[name] = f"held_{len(self.held)}"
            self.register_buffer(self.held[name], torch.from_numpy(np.array(array)))
        return self.get_buffer(self.held[name])

    def is_rounded(self, name: str) -> bool:
        """Whether a value is what a quantizer gives."""
        return any(name in node.output for node in self.nodes if node.op_type == "QuantizeLinear")

    def becomes_integers(self, name: str) -> bool:
        """Whether a value is read by one quantizer alone, or by that of a ReLU or clip which alone reads it."""
        node = self.reading.get(name)
        if node is None or self.readers[name] != 1:
            return False
        if node.op_type in ("Relu", "Clip"):
            return self.becomes_integers(node.output[0])
        return bool(node.op_type == "QuantizeLinear")
