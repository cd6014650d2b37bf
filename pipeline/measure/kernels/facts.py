"""What the patterns look at: the graph as ONNX Runtime runs it, the graph of the file, the processor."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from pipeline.base.hardware import cpu_flags

INTEGER = {
    "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "QAttention", "QGemm", "QLinearConv", "QLinearMatMul",
}  # fmt: skip
"""Operators that sum products of integers."""
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
MOVES = {
    "Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "ReorderInput", "ReorderOutput", "Reshape", "Slice",
    "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators that move numbers and compute none."""
BLOCKED = "com.microsoft.nchwc"
"""The domain of the operators that work on channels in blocks."""
MADE_BY_RUNTIME = re.compile(r"(_nchwc|_token_\d+|/duplicated|_quant)+$")
CONVOLUTION_AXES = 3
"""Axes of the weight of a convolution at least."""


class Cpu(NamedTuple):
    """What of a processor decides which kernels are fast."""

    is_x86: bool


def this_cpu() -> Cpu:
    """The processor of this machine."""
    return Cpu(bool(cpu_flags() & {"sse2", "avx", "avx2"}))


@dataclass(frozen=True)
class Node:
    """A node of a graph.

    Args:
        name, domain, operator, inputs, outputs: as in ONNX.
        attributes: those that are numbers or text.
        macs: that it sums for one example; None where they are not known.
        microseconds: that a run takes.
    """

    name: str
    domain: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    macs: int | None = 0
    microseconds: float = 0.0

    @property
    def is_product(self) -> bool:
        """Whether it sums products."""
        return self.macs != 0

    @property
    def is_integer(self) -> bool:
        """Whether its products are of integers."""
        nbits = self.operator == "MatMulNBits" and self.attributes.get("accuracy_level") == 4
        return self.operator in INTEGER or self.operator.startswith("QLinear") or nbits


@dataclass(frozen=True)
class Graph:
    """Nodes in their order; of each constant the dtype, of values the shape as far as it is known."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, str]
    shapes: Mapping[str, list[int]]
    outputs: frozenset[str]

    @classmethod
    def of(cls, seen: Mapping[str, Any]) -> "Graph":
        """What `look` saw."""
        nodes = [
            Node(**{**node, "inputs": tuple(node["inputs"]), "outputs": tuple(node["outputs"])})
            for node in seen["nodes"]
        ]
        return cls(tuple(nodes), seen["constants"], seen["shapes"], frozenset(seen["outputs"]))

    @cached_property
    def makers(self) -> dict[str, Node]:
        """The node that makes each value."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def _readers(self) -> dict[str, list[Node]]:
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        return readers

    def readers(self, node: Node) -> list[Node]:
        """The nodes that read what a node makes."""
        return [reader for name in node.outputs if name for reader in self._readers.get(name, [])]

    @cached_property
    def _fixed(self) -> set[str]:
        fixed = {*self.constants}
        for node in self.nodes:  # in an order in which each reads what is there
            if node.inputs and all(name in fixed for name in node.inputs if name):
                fixed.update(node.outputs)
        return fixed

    def is_constant(self, name: str) -> bool:
        """Whether a value is the same at each run: it is stored, or made of what is stored alone."""
        return name in self._fixed

    def past_moves(self, name: str) -> tuple[str, bool]:
        """The value that another one was moved of, and whether it was moved at all."""
        moved = False
        while (node := self.makers.get(name)) and node.operator in MOVES:
            name, moved = node.inputs[0], True
        return name, moved

    def dequantized(self, name: str) -> Node | None:
        """The DequantizeLinear that makes a value, if one does."""
        node = self.makers.get(name)
        return node if node and node.operator == "DequantizeLinear" else None

    def kind(self, conversion: Node) -> str:
        """The dtype of the integers of a QuantizeLinear or DequantizeLinear; "" where no constant tells."""
        zero = conversion.inputs[2] if len(conversion.inputs) > 2 else ""
        return self.constants.get(zero) or self.constants.get(conversion.inputs[0], "")


@dataclass(frozen=True)
class Facts:
    """What is known of a file.

    Args:
        run: the graph as ONNX Runtime runs it.
        file: the graph as the file has it.
        slower: whether the file is surely slower than the one before.
        layers: what a person calls the layers, by the node's name.
    """

    run: Graph
    file: Graph
    slower: bool
    layers: Mapping[str, str]

    @property
    def is_quantized(self) -> bool:
        """Whether anything in the file is of integers."""
        return any(
            node.is_integer or node.operator in CONVERSIONS for graph in (self.run, self.file) for node in graph.nodes
        )

    def products(self) -> Iterator[Node]:
        """The nodes that sum products."""
        return (node for node in self.run.nodes if node.is_product)

    def floats(self) -> Iterator[Node]:
        """Those of them that sum products of floats."""
        return (node for node in self.products() if not node.is_integer)

    def label(self, node: Node) -> str:
        """What a node is called: its layer, where that is known."""
        name = MADE_BY_RUNTIME.sub("", node.name)
        return self.layers.get(name) or (f"`{name}`" if name else f"a {node.operator} without a name")


def share_of_macs(nodes: list[Node], facts: Facts) -> float:
    """The share of all MACs that nodes sum; 0 where none are known."""
    every = sum(node.macs or 0 for node in facts.products())
    return sum(node.macs or 0 for node in nodes) / every if every else 0.0


def share_of_time(nodes: list[Node], facts: Facts) -> float:
    """The share of the time that nodes take; 0 where none is known."""
    every = sum(node.microseconds for node in facts.run.nodes)
    return sum(node.microseconds for node in nodes) / every if every else 0.0
