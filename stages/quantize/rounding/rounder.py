"""Rounds the weights of a graph: before it is quantized the biases, after it the integers are put in their places."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from stages.quantize.graphs.rewrite import drop_unread
from stages.quantize.quantizing.calibration_data import CalibrationData
from stages.quantize.rounding.bias import take_off
from stages.quantize.rounding.codes import Floats, Integers
from stages.quantize.rounding.layers import PLAIN, Layer, Scheme, choose, layers_of, squared
from stages.quantize.rounding.layout import places
from stages.quantize.rounding.moments import Moments

Entry = dict[str, Any]
"""What the record says of a layer."""


@dataclass(frozen=True)
class Rounding:
    """How the weights of a graph are rounded.

    Args:
        schemes: the integers that the weight of each node may take, by the node's name.
        named: the nodes of these that the user names.
        rounding: nearest or adaptive.
        bias_correction: whether mean shifts are taken off biases.
        reduce_range: whether 8 bits are 7.
    """

    schemes: dict[str, Scheme]
    named: list[str]
    rounding: str
    bias_correction: bool
    reduce_range: bool

    @property
    def is_adaptive(self) -> bool:
        """Whether it heeds inputs."""
        return self.rounding == "adaptive"


class Rounder:
    """Chooses the integers of the weights that a quantizer then writes with scales of its own.

    Args:
        graph: the fp32 graph.
        nodes: those that will be quantized, by name.
        whole: names of the weights that get one scale; None for all.
        rounding: how, and to which integers.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        nodes: dict[str, onnx.NodeProto],
        whole: Collection[str] | None,
        rounding: Rounding,
    ) -> None:
        self.rounding = rounding
        chosen = {name: node for name, node in nodes.items() if name in rounding.schemes}
        self.layers = layers_of(graph, chosen, rounding.schemes, whole)
        self.moments: Moments | None = None
        self.choices: dict[str, tuple[Integers, Floats]] = {}

    def watch(self, source: Path, data: CalibrationData, kept: Path | None = None) -> None:
        """Have the inputs of the layers summed up while the calibration data are read, if that is of use.

        Args:
            source: the graph's file.
            data: is told whom to hand its batches.
            kept: an .npz file of such sums, read in their place where it has them all.

        Raises:
            ValueError: it would be of use, and no layer's inputs can be.
        """
        if not (self.rounding.is_adaptive or self.rounding.bias_correction):
            return
        nodes = [(node, layer.array.shape) for layer in self.layers if layer.has_rows for node in layer.nodes]
        if not nodes:
            raise ValueError("no weight is one of a convolution or matrix product. Set rounding: nearest")
        self.moments = Moments(source, nodes)
        if not (kept and kept.exists() and self.moments.restore(kept)):
            data.also = self.moments.add

    def choose(self, without: Collection[str]) -> None:
        """Choose integers and scales for all layers but those of some nodes, and those that a quantizer gets right."""
        kept = [(layer, tuple(node for node in layer.nodes if node.name not in without)) for layer in self.layers]
        self.layers = [replace(layer, nodes=nodes) for layer, nodes in kept if nodes]
        for layer in self.layers:
            if layer.scheme != PLAIN or self.rounding.is_adaptive or self.rounding.bias_correction:
                products = self._products(layer) if self.rounding.is_adaptive else None
                self.choices[layer.weight] = choose(layer, self.rounding.reduce_range, products)

    @property
    def unheeding(self) -> list[str]:
        """Names of the nodes whose rounding heeds no inputs, though it should."""
        without = [layer for layer in self.layers if self.rounding.is_adaptive and not layer.has_rows]
        return [*dict.fromkeys(node.name for layer in without for node in layer.nodes)]

    def correct(self, graph: onnx.GraphProto) -> list[str]:
        """Take the mean shifts off the biases, in place; the names of the nodes that have no place for it.

        Raises:
            ValueError: none has one.
        """
        if not self.rounding.bias_correction:
            return []
        before = {tensor.name for tensor in graph.initializer}
        nodes = {node.name: node for node in graph.node}
        left = []
        for layer in self.layers:
            for node in layer.nodes:
                shift = self._shift(layer, node)
                if shift is None or not take_off(graph, nodes[node.name], shift):
                    left.append(node.name)
        if len(left) == sum(len(layer.nodes) for layer in self.layers):
            raise ValueError("no layer has a bias that a mean shift could be taken off. Leave bias_correction out")
        drop_unread(graph, before)
        return left

    def put(self, graph: onnx.GraphProto) -> list[Entry]:
        """Put the integers and scales in the place of the quantizer's; what became of each layer.

        Raises:
            ValueError: a node that the user names was not quantized.
        """
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        entries = []
        for layer in self.layers:
            parts = [tensors.get(f"{layer.weight}_{part}") for part in ("quantized", "scale", "zero_point")]
            if not all(parts):
                continue
            if layer.weight in self.choices:
                _replace(layer, *self.choices[layer.weight], parts)
            entries += self._entries(layer, parts)
        quantized = {entry["node"] for entry in entries}
        if lost := [name for name in self.rounding.named if name not in quantized]:
            raise ValueError(
                f"the node `{lost[0]}` is named in `layers` and is not quantized by itself. Leave it out there"
            )
        return entries

    def _products(self, layer: Layer) -> Floats | None:
        if self.moments is None or not layer.has_rows:
            return None
        sums = [self.moments.of(node, layer.array.shape).around(self.rounding.bias_correction) for node in layer.nodes]
        return np.asarray(sum(sums))

    def _shift(self, layer: Layer, node: onnx.NodeProto) -> Floats | None:
        """(channels,) the mean of what a node gives too much over the calibration data."""
        if self.moments is None or not layer.has_rows:
            return None
        integers, scale = self.choices[layer.weight]
        mean = self.moments.of(node, layer.array.shape).mean
        return np.asarray(np.einsum("gcn,gn->gc", scale * integers - layer.blocks, mean).ravel())

    def _entries(self, layer: Layer, parts: list[onnx.TensorProto]) -> list[Entry]:
        integers, scale, zero = (numpy_helper.to_array(part) for part in parts)
        stored = integers.astype(np.float64) - zero.ravel()[0]
        stored = stored if stored.shape == layer.array.shape else stored.swapaxes(-1, -2)
        blocks = layer.blocks
        change = blocks - scale.reshape(layer.scales) * stored.ravel()[places(layer.nodes[0], layer.array.shape)]
        error = {"weights": _share((change**2).sum(), (blocks**2).sum())}
        if (products := self._products(layer)) is not None:
            error["outputs"] = _share(squared(change, products).sum(), squared(blocks, products).sum())
        entry = {"weight": layer.weight, **layer.scheme, "values": len(np.unique(integers)), "error": error}
        return [{"node": node.name, **entry} for node in layer.nodes]


def _replace(layer: Layer, integers: Integers, scale: Floats, parts: list[onnx.TensorProto]) -> None:
    """Write the integers and scales into the quantizer's tensors; those of a Gather are made signed."""
    old_integers, old_scale, old_zero = (numpy_helper.to_array(part) for part in parts)
    if old_scale.size != scale.size:
        raise ValueError(f"`{layer.weight}` has {old_scale.size} scales where {scale.size} are expected")
    stored = layer.stored(integers)
    new = (
        stored if stored.shape == old_integers.shape else stored.swapaxes(-1, -2).copy(),
        scale.reshape(old_scale.shape).astype(old_scale.dtype),
        np.zeros(old_zero.shape, np.int8),
    )
    for part, array in zip(parts, new, strict=True):
        part.CopyFrom(numpy_helper.from_array(array, part.name))


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0
