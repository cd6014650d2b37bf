"""The weights that zeros can come into, and where the numbers lie that one output is computed from."""

import copy
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from pipeline.errors import ShrinkError, blame
from pipeline.forms.tracing import slow_path
from pipeline.model import TorchModel, call, same
from stages.prune.coupling.parts import LAYERS
from stages.prune.sparse.masks import Floats


@dataclass(frozen=True, eq=False)
class Weight:
    """A parameter that zeros can come into.

    Args:
        name: of the parameter.
        layers: names of the layers that have it, several where it is tied.
        places: (groups, rows, width) where in the flattened parameter the numbers lie. A row is what one output is
            computed from; the input channels lie beside each other, for one position of a kernel after the other.
        channels: how many lie beside each other.
        is_met: whether a layer of one weight has it, of which what it is multiplied with can be seen.
    """

    name: str
    layers: tuple[str, ...]
    places: NDArray[np.int64]
    channels: int
    is_met: bool

    def blocks(self, module: nn.Module) -> Floats:
        """The numbers of it in a module: (groups, rows, width)."""
        values: Floats = module.get_parameter(self.name).detach().double().cpu().numpy()
        return values.reshape(-1)[self.places]

    def stored(self, module: nn.Module, blocks: Floats) -> Tensor:
        """Blocks (groups, rows, width) in the shape and type of the parameter."""
        parameter = module.get_parameter(self.name)
        flat = np.empty(blocks.size)
        flat[self.places.reshape(-1)] = blocks.reshape(-1)
        return torch.from_numpy(flat).to(parameter).view(parameter.shape)


@dataclass
class Calls:
    """What one forward in evaluation mode says of a module's layers.

    Args:
        layers: names of those with weights, in the order of their calls.
        nonlinear: names of those that compute with something else than the weight that they hold.
    """

    layers: list[str] = field(default_factory=list)
    nonlinear: list[str] = field(default_factory=list)


def weights_of(module: nn.Module) -> list[Weight]:
    """The weights of convolutions, linear and recurrent layers and attention, tied ones once; none of an embedding."""
    embedded = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)}
    owners: dict[int, list[tuple[str, nn.Module, str]]] = {}
    for name, part in module.named_modules():
        for key in _keys(part):
            if id(getattr(part, key)) not in embedded:
                owners.setdefault(id(getattr(part, key)), []).append((name, part, key))
    weights = []
    for tied in owners.values():
        (name, part, key), layers = tied[0], tuple(layer for layer, _, _ in tied)
        places = _places(part, getattr(part, key).shape)
        channels = getattr(part, key).shape[1]
        if isinstance(part, _ConvTransposeNd):
            channels = part.in_channels // part.groups
        is_met = all(isinstance(other, LAYERS) and _kind(other) == _kind(part) for _, other, _ in tied)
        weights.append(Weight(f"{name}.{key}".lstrip("."), layers, places, channels, is_met))
    return weights


def calls_of(model: TorchModel, error: type[ShrinkError]) -> Calls:
    """What a forward of the example says of the layers. Raises `error` where it fails."""
    calls = Calls()

    def look(name: str, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.layers.append(name)
        if isinstance(layer, LAYERS) and not _is_linear(layer, args, named):
            calls.nonlinear.append(name)

    with torch.no_grad(), slow_path(), blame(error, "the model on its example"), ExitStack() as hooks:
        for name, part in model.module.named_modules():
            if _keys(part):  # before its call, so that a layer comes before those in it
                hooks.enter_context(part.register_forward_pre_hook(partial(look, name), with_kwargs=True))
        call(model.module, model.example)
    return calls


def with_weight(layer: nn.Module, weight: Tensor) -> nn.Module:
    """A layer that shares all with another but its weight, and adds no bias; its forward calls no hooks."""
    other, own = copy.copy(layer), {"weight": nn.Parameter(weight, requires_grad=False)}
    if layer._parameters.get("bias") is not None:
        outputs = weight.shape[1] * layer.groups if isinstance(layer, _ConvTransposeNd) else len(weight)
        own["bias"] = nn.Parameter(weight.new_zeros(outputs), requires_grad=False)
    other._parameters = {**layer._parameters, **own}
    return other


def _kind(layer: nn.Module) -> tuple[type, int]:
    return type(layer), getattr(layer, "groups", 1)


def _is_linear(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether twice the weight gives twice the output: not where it is standardized or quantized at each call."""
    weight = layer.get_parameter("weight").detach()
    once, twice = (with_weight(layer, factor * weight).forward(*args, **named) for factor in (1, 2))
    return isinstance(once, Tensor) and same(2 * once, twice)


def _keys(part: nn.Module) -> list[str]:
    """The names of a part's own weights that can be pruned."""
    own = part._parameters.items() if isinstance(part, (*LAYERS, nn.RNNBase, nn.MultiheadAttention)) else ()
    return [key for key, value in own if value is not None and value.is_floating_point() and _is_weight(part, key)]


def _is_weight(part: nn.Module, key: str) -> bool:
    return key == "weight" if isinstance(part, LAYERS) else part.get_parameter(key).dim() == 2


def _places(part: nn.Module, shape: torch.Size) -> NDArray[np.int64]:
    at = np.arange(prod(shape)).reshape(shape)
    if not isinstance(part, _ConvNd):
        return at[None]
    apart = at.reshape(part.groups, -1, *shape[1:])
    channels_last = np.moveaxis(apart, 1 if isinstance(part, _ConvTransposeNd) else 2, -1)
    return channels_last.reshape(*channels_last.shape[:2], -1)
