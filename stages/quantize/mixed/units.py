"""The layers of a graph as far as they can have widths of their own: those that share a weight have one."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.forms.sandbox.frames import Arrays
from stages.quantize.halves.numbers import nearest
from stages.quantize.rounding.layers import PLAIN, Layer, Scheme, choose, layers_of


@dataclass(frozen=True)
class Unit:
    """Nodes that take the same width, with all their weights.

    Args:
        nodes: in their order.
        layers: the weights.
    """

    nodes: tuple[onnx.NodeProto, ...]
    layers: tuple[Layer, ...]

    @property
    def names(self) -> list[str]:
        """Those of its nodes."""
        return [node.name for node in self.nodes]

    @property
    def elements(self) -> int:
        """How many numbers its weights have."""
        return sum(layer.array.size for layer in self.layers)

    def fits(self, scheme: Scheme) -> bool:
        """Whether its weights may have these integers: a codebook has no more values than a weight."""
        return all(scheme.get("codebook", 0) <= layer.array.size for layer in self.layers)

    def rounded(self, scheme: Scheme, *, is_reduced: bool) -> dict[str, NDArray[np.float32]]:
        """Its weights, by name, as the numbers of a scheme hold them: float32 in their own shapes."""
        return {layer.weight: _rounded(layer, scheme, is_reduced).astype(np.float32) for layer in self.layers}


def _rounded(layer: Layer, scheme: Scheme, is_reduced: bool) -> NDArray[np.floating]:
    if "half" in scheme:
        return nearest(layer.array, scheme["half"])
    integers, scale = choose(replace(layer, scheme=scheme), is_reduced)
    return layer.stored(integers * scale)


def units_of(graph: onnx.GraphProto, nodes: Mapping[str, onnx.NodeProto], whole: Collection[str] | None) -> list[Unit]:
    """The units of some nodes, in the order of their first node.

    Args:
        graph: with its weights.
        nodes: those that would be quantized, by name.
        whole: names of the weights that get one scale; None for all.
    """
    layers = layers_of(graph, dict(nodes), dict.fromkeys(nodes, PLAIN), whole)
    members: list[list[Layer]] = []
    for layer in layers:
        names = {node.name for node in layer.nodes}
        joined = [group for group in members if names & {node.name for other in group for node in other.nodes}]
        members = [group for group in members if group not in joined]
        members.append([*(other for group in joined for other in group), layer])
    order = {name: place for place, name in enumerate(nodes)}
    units = [_unit(group) for group in members]
    return sorted(units, key=lambda unit: order[unit.nodes[0].name])


def _unit(layers: list[Layer]) -> Unit:
    nodes = {node.name: node for layer in layers for node in layer.nodes}
    return Unit(tuple(nodes.values()), tuple(layers))


def largest_inputs(unit: Unit, batches: Sequence[Arrays]) -> dict[str, tuple[float, float]]:
    """The least and the largest value of what each node of a unit reads, over batches, by the value's name."""
    names = {node.input[0] for node in unit.nodes} & {*batches[0]}
    return {n: (min(float(b[n].min()) for b in batches), max(float(b[n].max()) for b in batches)) for n in names}
