"""A layer's weight, and the integers and scales that are chosen for it."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from pipeline.forms.graph import read_by
from stages.quantize.graphs.masks import FLOATS
from stages.quantize.rounding.adaptive import adapted
from stages.quantize.rounding.codes import HIGHEST, Floats, Integers, nearest, uniform
from stages.quantize.rounding.layout import WEIGHTS, has_rows, places
from stages.quantize.rounding.scales import fitted, largest, least_squares, total, with_codebook

Number = TypeVar("Number", np.int8, np.float64)
Scheme = dict[str, Any]
"""{"bits": 2 to 8, or "ternary"}, {"codebook": how many values}, or {"half": "fp16" or "bf16"}, floats of 16 bits."""
PLAIN: Scheme = {"bits": 8}
REDUCED = 64
REFITS = 3


@dataclass(frozen=True)
class Layer:
    """A weight and the nodes that read it.

    Args:
        weight: its name.
        array: its values, as the graph has them.
        nodes: the nodes.
        scheme: the integers that it may take.
        is_whole: whether all of it has one scale; else each channel has its own.
        is_shared: whether other nodes read it too.
    """

    weight: str
    array: NDArray[np.floating]
    nodes: tuple[onnx.NodeProto, ...]
    scheme: Scheme
    is_whole: bool
    is_shared: bool = False

    @property
    def blocks(self) -> Floats:
        """The weight as (groups, channels, width)."""
        return self.array.astype(np.float64).ravel()[places(self.nodes[0], self.array.shape)]

    @property
    def scales(self) -> tuple[int, int, int]:
        """The shape of its scales: (groups or 1, channels or 1, 1)."""
        groups, channels, _ = places(self.nodes[0], self.array.shape).shape
        if self.nodes[0].op_type == "LSTM":
            return groups, 1 if self.is_whole else channels, 1
        if self.is_whole:
            return 1, 1, 1
        return 1 if self.nodes[0].op_type == "ConvTranspose" else groups, channels, 1

    @property
    def has_rows(self) -> bool:
        """Whether all that it meets can be written as rows, and so its rounding can heed it."""
        first, *others = (places(node, self.array.shape) for node in self.nodes)
        are_alike = all(np.array_equal(first, other) for other in others)
        return are_alike and not self.is_shared and all(has_rows(node, self.array.shape) for node in self.nodes)

    def stored(self, blocks: NDArray[Number]) -> NDArray[Number]:
        """Blocks (groups, channels, width) in the shape of the weight."""
        flat = np.empty(self.array.size, blocks.dtype)
        flat[places(self.nodes[0], self.array.shape).ravel()] = blocks.ravel()
        return flat.reshape(self.array.shape)


def layers_of(
    graph: onnx.GraphProto, nodes: dict[str, onnx.NodeProto], schemes: dict[str, Scheme], whole: Collection[str] | None
) -> list[Layer]:
    """The constant weights that some nodes read, in the order of the first reader."""
    tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type in FLOATS}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes.values():
        for place in WEIGHTS[node.op_type]:
            if node.input[place] in tensors:
                readers.setdefault(node.input[place], []).append(node)
    reads = Counter(name for node in graph.node for name in {*read_by(node)})
    return [
        Layer(
            weight=name,
            array=numpy_helper.to_array(tensors[name]),
            nodes=tuple(some),
            scheme=schemes[some[0].name],
            is_whole=whole is None or name in whole or some[0].op_type == "Gather",
            is_shared=reads[name] > len(some),
        )
        for name, some in readers.items()
    ]


def choose(layer: Layer, is_reduced: bool, products: Floats | None = None) -> tuple[Integers, Floats]:
    """The integers q (groups, channels, width) and scales s (groups or 1, channels or 1, 1) that stand for a weight.

    Args:
        layer: the weight.
        is_reduced: whether 8 bits are 7, and a codebook within them.
        products: sums of x x^T over the layer's inputs, (groups, width, width): then the layer's outputs change least;
            without, the weights do.
    """
    blocks, highest = layer.blocks, REDUCED if is_reduced else HIGHEST
    if "codebook" in layer.scheme:
        codes, scale = with_codebook(blocks, layer.scheme["codebook"], highest, layer.scales)
    else:
        codes = uniform(layer.scheme["bits"], highest)
        fewer = layer.scheme["bits"] != 8
        scale = least_squares(blocks, codes, layer.scales) if fewer else largest(blocks, highest, layer.scales)
    if products is None:
        return nearest(blocks / scale, codes), scale
    return heeding(blocks, scale, codes, products, 0 if len(codes) > REDUCED else REFITS)


def heeding(blocks: Floats, scale: Floats, codes: Integers, products: Floats, refits: int) -> tuple[Integers, Floats]:
    """Integers and scales of which the outputs' error is least, in turns: the codes, and the scale best for these.

    Args:
        blocks: the weights, (groups, channels, width).
        scale: to begin with, (groups or 1, channels or 1, 1).
        codes: the integers that weights may become, ascending.
        products: sums of x x^T, (groups, width, width).
        refits: how many times the scale is chosen anew.
    """
    integers, least = np.zeros(blocks.shape, np.int8), np.full(scale.shape, np.inf)
    best = scale
    for _ in range(refits + 1):
        scales = np.broadcast_to(scale, (len(blocks), *scale.shape[1:]))
        new = np.stack([adapted(w, s, codes, h) for w, s, h in zip(blocks, scales, products, strict=True)])
        error = total(squared(blocks - scale * new, products), scale)
        is_better = error < least
        integers = np.where(is_better, new, integers)
        best, least = np.where(is_better, scale, best), np.minimum(error, least)
        scale = fitted(blocks, integers, best, products)
    return integers, best


def squared(change: Floats, products: Floats) -> Floats:
    """What a change of the weights (groups, channels, width) adds up to in the outputs: (groups, channels, width)."""
    return np.asarray(change @ products * change)
