"""Which layers factors can stand for, what these cost at each rank, and why other layers stay."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from pipeline.errors import StageError, blame
from pipeline.model import TorchModel, call
from stages.layerwise.calibration import looking
from stages.prune.coupling.parts import LAYERS, axis_of
from stages.prune.ignored import is_in
from stages.prune.ranks.factors import Part, outline
from stages.prune.ranks.proof import unfit

Ranks = tuple[int, ...]

GROUPED = "convolutions in groups and transposed ones are not factorized"
TIED = "the weight is in other places too"
UNREACHED = "not run as a layer in evaluation mode, where factors are proven"
READ = "with factors in place of it the model does not run, or gives other values"


class Cost(NamedTuple):
    """Parameters without biases, and MACs of one example."""

    params: int
    macs: int


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer that can be factorized.

    Args:
        name: of the submodule.
        part: the submodule.
        shapes: of its inputs at each call, for one example.
        count: of the ranks: 1 for two factors, 2 for three (Tucker-2).
    """

    name: str
    part: Part
    shapes: tuple[torch.Size, ...]
    count: int

    @property
    def whole(self) -> Cost:
        """What it costs."""
        size = self.part.weight.numel()
        return Cost(size, size * int(self._positions[-1]))

    def costs(self, ranks: Tensor) -> Tensor:
        """What the factors cost: (n, count) ranks -> (n, 2) parameters and MACs."""
        products = [ranks[:, :1], *[ranks.prod(1, keepdim=True)] * (self.count - 1), ranks[:, -1:]]
        sizes = torch.cat(products, 1) * self._sizes
        return torch.stack([sizes.sum(1), sizes @ self._positions], 1)

    def smaller(self, ranks: Tensor) -> Tensor:
        """(n, count) -> (n,) whether the factors have fewer parameters and MACs, at ranks that there can be."""
        return (self.costs(ranks) < torch.tensor(self.whole)).all(1) & (ranks <= self.limits(ranks)).all(1)

    def choices(self, step: int) -> Tensor:
        """(n, count) the ranks that make it smaller, multiples of `step`."""
        axes = [torch.arange(size // step) * step + step for size in self._sides]
        ranks = torch.cartesian_prod(*axes).view(-1, self.count)
        return ranks[self.smaller(ranks)]

    def equal(self, rank: int) -> Ranks:
        """The ranks that a single number stands for: all of them that, as far as there are channels."""
        return tuple(min(rank, size) for size in self._sides)

    def largest(self) -> int:
        """The largest number of which the ranks make it smaller; 0 where none does."""
        numbers = range(max(self._sides), 0, -1)
        return next((n for n in numbers if self.smaller(torch.tensor([self.equal(n)])).item()), 0)

    def limits(self, ranks: Tensor) -> Tensor:
        """The largest useful ranks beside (n, count): of two none is larger than the other with the kernel."""
        sides = torch.tensor(self._sides)
        return sides if self.count == 1 else torch.minimum(sides, ranks.flip(1) * prod(self.part.weight.shape[2:]))

    @property
    def _sides(self) -> Ranks:
        """The largest possible ranks."""
        outputs, inputs, *kernel = self.part.weight.shape
        first, *rest = kernel or [1]
        return (inputs, outputs) if self.count == 2 else (min(inputs * first, outputs * prod(rest)),)

    @cached_property
    def _sizes(self) -> Tensor:
        """Parameters of the factors where all ranks are 1."""
        return torch.tensor([layer.weight.numel() for layer in self._outline])

    @cached_property
    def _positions(self) -> Tensor:
        """How often each factor's weight is multiplied with something."""
        counts = [0] * len(self._outline)
        for shape in self.shapes:
            values = torch.empty(shape, device="meta")
            for place, layer in enumerate(self._outline):
                values = layer(values)
                counts[place] += values.numel() // values.shape[axis_of(layer, values)]
        return torch.tensor(counts)

    @cached_property
    def _outline(self) -> Any:
        return outline(self.part, [1] * self.count)


class Layers(NamedTuple):
    """All of a model that can be factorized, and the names of what stays, by the reason."""

    layers: list[Layer]
    stay: dict[str, list[str]]


def find(model: TorchModel, ignore: Sequence[str], method: str) -> Layers:
    """The linear layers and convolutions outside of `ignore`; what can be factorized is proven.

    Args:
        ignore: names of layers, or of parts with layers.
        method: "tucker" or "spatial", of convolutions whose kernel has several places.

    Raises:
        StageError: the model does not run on its example.
    """
    parts = {n: part for n, part in model.module.named_modules() if n and isinstance(part, LAYERS)}
    parts = {name: part for name, part in parts.items() if not is_in(name, ignore)}
    shapes = _input_shapes(model, parts)
    uses = Counter(id(parameter) for _, parameter in model.module.named_parameters(remove_duplicate=False))
    stay: dict[str, list[str]] = {}
    layers: dict[str, Layer] = {}
    for name, part in parts.items():
        reason = _obstacle(part, shapes.get(name), uses)
        if isinstance(part, Part) and not reason:
            layers[name] = Layer(name, part, tuple(shapes[name]), _count(part, method))
        else:
            stay.setdefault(reason, []).append(name)
    if wrong := unfit(model.module, model.example, {layer.name: layer.count for layer in layers.values()}):
        stay[READ] = [name for name in layers if name in wrong]
    return Layers([layer for layer in layers.values() if layer.name not in wrong], stay)


def _obstacle(part: nn.Module, shapes: Sequence[torch.Size] | None, uses: Mapping[int, int]) -> str:
    """Why a layer cannot be factorized, as far as it is known without trying; empty where nothing is."""
    if isinstance(part, _ConvNd) and (part.transposed or part.groups > 1):
        return GROUPED
    if uses[id(part.weight)] > 1:
        return TIED
    return "" if shapes else UNREACHED


def _count(part: Part, method: str) -> int:
    return 2 if method == "tucker" and prod(part.weight.shape[2:]) > 1 else 1


def _input_shapes(model: TorchModel, parts: Mapping[str, nn.Module]) -> dict[str, list[torch.Size]]:
    """Of each layer's inputs at each call, for one example."""
    shapes: dict[str, list[torch.Size]] = {}

    def keep(name: str, part: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        shapes.setdefault(name, []).append(next(iter((*args, *kwargs.values()))).shape)

    looks = {name: partial(keep, name) for name in parts}
    with looking(model.module, looks), blame(StageError, "the model on its example"):
        call(model.module, {name: value[:1] for name, value in model.example.items()})
    return shapes
