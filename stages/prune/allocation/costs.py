"""What a model costs with fewer channels in its groups: counted from the shapes of its weights, without cutting it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from torch import nn

from pipeline.base.batches import Inputs
from pipeline.measure.cost import macs_by_module
from stages.prune.allocation.search import Counts, Scope, kept, lost, solve
from stages.prune.coupling import engine
from stages.prune.coupling.coupled import Coupled
from stages.prune.coupling.parts import shortened
from stages.prune.coupling.telling import cost

Unit = Literal["macs", "params", "channels"]


@dataclass(frozen=True)
class Cost:
    """A cost of a module.

    Args:
        unit: macs of one example, params, or output channels.
        example: a batch of inputs.
        prunable: names of the layers whose output channels count.
    """

    unit: Unit
    example: Inputs
    prunable: frozenset[str]

    def of(self, module: nn.Module) -> int:
        """What a module costs, as it is."""
        if self.unit == "channels":
            return sum(width for layer, width in engine.widths(module).items() if layer in self.prunable)
        return cost(self.unit, module, self.example)

    def whole(self, module: nn.Module) -> int:
        """What all of it costs: a module that is whole."""
        return self.of(module)

    def solved(
        self, module: nn.Module, groups: Sequence[Coupled], budget: float, scope: Scope, round_to: int
    ) -> tuple[float, Counts]:
        """The pruning ratio, and the counts of the largest module found within the budget; see `solve`."""
        counted = self.by_counts(module, groups, kept(groups, 1.0, scope, round_to))
        return solve(groups, counted, budget, scope, round_to)

    def by_counts(self, module: nn.Module, groups: Sequence[Coupled], proof: Counts) -> Callable[[Counts], float]:
        """What the module costs with so many channels left in each group, by the formula where it holds."""
        return self.formula(module, groups, proof) or self.by_cutting(module, groups)

    def formula(self, module: nn.Module, groups: Sequence[Coupled], proof: Counts) -> Callable[[Counts], float] | None:
        """The cost as a sum of products of lengths of axes, which fall by as much with each channel.

        None where that is not what a smaller module costs, as where a forward multiplies by itself.

        Args:
            module: whole.
            groups: what can be removed.
            proof: counts at which a copy that is cut has to cost as much.
        """
        counted = self._counted(module, groups)
        return counted if counted(proof) == self.by_cutting(module, groups)(proof) else None

    def by_cutting(self, module: nn.Module, groups: Sequence[Coupled]) -> Callable[[Counts], float]:
        """The cost of a copy that is cut for each of the counts."""
        return lambda counts: self.of(engine.trimmed(module, lost(groups, counts), groups))

    def _counted(self, module: nn.Module, groups: Sequence[Coupled]) -> Callable[[Counts], float]:
        factors, lengths = self._terms(module)
        rank = max(map(len, lengths.values()), default=0)
        full = np.array([len(group.scores) for group in groups])
        whole = np.array([[*own, *[1] * (rank - len(own))] for own in lengths.values()])
        falling = np.zeros((len(lengths), rank, len(groups)))
        for place, group in enumerate(groups):
            by_name = self._falling(module, group)
            for row, name in enumerate(lengths):
                falling[row, : len(lengths[name]), place] = by_name.get(name, 0)
        weights = np.array([factors[name] for name in lengths])
        constant = self.of(module) - weights @ whole.prod(1)

        def cost(counts: Counts) -> int:
            return round(float(constant + weights @ (whole - falling @ (full - counts)).prod(1)))

        return cost

    def _terms(self, module: nn.Module) -> tuple[dict[str, float], dict[str, tuple[int, ...]]]:
        """By name the factors and the lengths of the axes, whose product with it is added to the cost."""
        if self.unit == "channels":
            widths = engine.widths(module)
            return dict.fromkeys(self.prunable, 1.0), {name: (widths[name],) for name in self.prunable}
        is_params = self.unit == "params"
        shapes = {name: tuple(p.shape) for name, p in module.named_parameters(remove_duplicate=is_params)}
        if is_params:
            return dict.fromkeys(shapes, 1.0), shapes
        weights = {name: shape for name, shape in shapes.items() if len(shape) > 1}
        macs, sizes = macs_by_module(module, self.example), dict[str, int]()
        for name, shape in weights.items():
            sizes[_owner(name)] = sizes.get(_owner(name), 0) + prod(shape)
        return {name: macs.get(_owner(name), 0) / sizes[_owner(name)] for name in weights}, weights

    def _falling(self, module: nn.Module, group: Coupled) -> Mapping[str, tuple[int, ...]]:
        """By how much the same axes become shorter with one channel less in each part of a group."""
        gone = group.without([0])
        if self.unit == "channels":
            return {place.name: (len(channels),) for place, channels in gone.items() if place.side == "out"}
        falling: dict[str, tuple[int, ...]] = {}
        for place, channels in gone.items():
            for name, axes in shortened(module, place, channels).items():
                falling[name] = tuple(np.add(falling.get(name, 0), axes).tolist())
        return falling


def _owner(name: str) -> str:
    """The module that has a parameter."""
    return name.rpartition(".")[0]
