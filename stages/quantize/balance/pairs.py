"""Where a graph has layers between which a factor for each channel goes through: what gives it, and what undoes it."""

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pipeline.forms.graph import read_by
from stages.quantize.balance.channels import LAYERS, Floats, inputs, outputs
from stages.quantize.rounding.layout import attributes

THROUGH = ("Relu", "LeakyRelu", "Identity")
"""Operators that give c f(x) for c x, where c is above zero, whatever axis the channels have."""
POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
"""And those for channels in the second axis."""


class Pair(NamedTuple):
    """Layers with the same channels between them.

    Args:
        first: what gives the channels: a layer or a LayerNormalization.
        bias: the node that adds the bias of `first`, and the place of that among its inputs; None without one.
        second: the layers that read them.
        value: the name of what these read.
        others: whether other nodes read it too.
        repeats: how many inputs of `second` each channel makes, in a row.
    """

    first: onnx.NodeProto
    bias: tuple[onnx.NodeProto, int] | None
    second: tuple[onnx.NodeProto, ...]
    value: str
    others: bool = False
    repeats: int = 1


class Graph:
    """A graph and who reads what in it; its nodes are to be changed in place.

    Args:
        proto: the graph.
    """

    def __init__(self, proto: onnx.GraphProto) -> None:
        self.proto = proto
        self.tensors = {tensor.name: tensor for tensor in proto.initializer if tensor.data_type == TensorProto.FLOAT}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in proto.node:
            for name in {*read_by(node)}:
                self.readers.setdefault(name, []).append(node)
        self.ends = {value.name for value in proto.output}
        self.counts = Counter(name for node in proto.node for name in read_by(node))

    def array(self, name: str) -> Floats:
        """The values of a constant."""
        return np.asarray(numpy_helper.to_array(self.tensors[name]))

    def is_layer(self, node: onnx.NodeProto) -> bool:
        """Whether it is a layer whose weight it alone reads."""
        if node.op_type not in LAYERS or attributes(node).get("transA") or node.input[1] not in self.tensors:
            return False
        is_flat = node.op_type == "Conv" or len(self.tensors[node.input[1]].dims) == 2
        factors = [attributes(node).get(name, 1.0) for name in ("alpha", "beta")]
        return is_flat and self.counts[node.input[1]] == 1 and node.input[1] not in self.ends and factors == [1, 1]

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads a value, itself and not a graph inside it; None where there are others."""
        some = self.readers.get(name, [])
        return some[0] if len(some) == 1 and name not in self.ends and name in some[0].input else None

    def pairs(self) -> Iterator[Pair]:
        """Layers of which one alone reads the other, with what is between them."""
        for node in self.proto.node:
            if self.is_layer(node) and (start := self.start(node)):
                value, bias = start
                if pair := self._followed(node, bias, value):
                    yield pair

    def start(self, node: onnx.NodeProto) -> tuple[str, tuple[onnx.NodeProto, int] | None] | None:
        """What a layer gives, its bias added, and where that is; None where that is no constant for each channel."""
        width = len(outputs(node, self.array(node.input[1])))
        name, behind = node.output[0], self.only_reader(node.output[0])
        if len(node.input) > 2 and node.input[2]:
            is_plain = node.input[2] in self.tensors and [*self.tensors[node.input[2]].dims] == [width]
            return (name, (node, 2)) if is_plain else None
        if node.op_type == "MatMul" and behind is not None and behind.op_type == "Add":
            place = 1 - [*behind.input].index(name)
            if behind.input[place] in self.tensors and [*self.tensors[behind.input[place]].dims] == [width]:
                return behind.output[0], (behind, place)
        return name, None

    def _followed(self, first: onnx.NodeProto, bias: tuple[onnx.NodeProto, int] | None, value: str) -> Pair | None:
        is_image, rank = first.op_type == "Conv", len(self.tensors[first.input[1]].dims)
        while (node := self.only_reader(value)) is not None:
            if self.is_layer(node) and node.input[0] == value and (node.op_type == "Conv") == is_image:
                width = len(inputs(node, self.array(node.input[1])))
                repeats, rest = divmod(width, len(outputs(first, self.array(first.input[1]))))
                return Pair(first, bias, (node,), value, repeats=repeats) if repeats and not rest else None
            if is_image and self._flattens(node, rank):
                is_image = False
            elif not (node.op_type in THROUGH or (is_image and (node.op_type in POOLS or self._means(node, rank)))):
                return None
            value = node.output[0]
        return None

    def _flattens(self, node: onnx.NodeProto, rank: int) -> bool:
        """Whether it makes (N, C * ...) of (N, C, ...), which has so many axes."""
        if node.op_type == "Flatten":
            return bool(attributes(node).get("axis", 1) == 1)
        if node.op_type != "Reshape":
            return self._means(node, rank) and not attributes(node).get("keepdims", 1)
        shape, dims = self._numbers(node.input[1]), self._dims(node.input[0])
        is_batch = len(shape) == 2 and shape[0] == 0 and not attributes(node).get("allowzero", 0)
        return is_batch or (len(shape) == 2 and bool(dims) and shape[1] > 0 and shape[1] == prod(dims[1:]))

    def _means(self, node: onnx.NodeProto, rank: int) -> bool:
        """Whether it is the mean over all axes behind the channels."""
        if node.op_type != "ReduceMean":
            return False
        axes = attributes(node).get("axes") or (self._numbers(node.input[1]) if len(node.input) > 1 else [])
        return sorted(axis % rank for axis in axes) == [*range(2, rank)]

    def _numbers(self, name: str) -> list[int]:
        tensors = [tensor for tensor in self.proto.initializer if tensor.name == name]
        return [int(number) for number in numpy_helper.to_array(tensors[0]).ravel()] if tensors else []

    def normed(self) -> Iterator[Pair]:
        """LayerNormalizations that layers read, in matrix products; they may be read by others too."""
        inner = {name for node in self.proto.node for name in {*read_by(node)} - {*node.input}}
        for node in self.proto.node:
            value = node.output[0]
            if node.op_type != "LayerNormalization" or not self._is_plain_norm(node) or value in inner:
                continue
            some = self.readers.get(value, [])
            second = tuple(n for n in some if n.op_type != "Conv" and self.is_layer(n) and n.input[0] == value)
            others = len(second) < len(some) or value in self.ends
            if second:
                yield Pair(node, (node, 2) if len(node.input) > 2 else None, second, value, others)

    def _is_plain_norm(self, node: onnx.NodeProto) -> bool:
        constants = [name in self.tensors and len(self.tensors[name].dims) == 1 for name in node.input[1:]]
        is_last = attributes(node).get("axis", -1) == -1
        return all(constants) and (is_last or len(self._dims(node.input[0])) == attributes(node)["axis"] + 1)

    def _dims(self, name: str) -> list[int]:
        """The shape of a value, 0 for what varies; nothing where it is not known."""
        values = (*self.proto.value_info, *self.proto.input, *self.proto.output)
        shapes = [value.type.tensor_type.shape.dim for value in values if value.name == name]
        return [dim.dim_value for dim in shapes[0]] if shapes else []
