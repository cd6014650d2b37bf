"""What weights are multiplied with, and what changed weights do to outputs, seen on calibration data."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from pipeline.context import Context
from stages.layerwise import moments
from stages.prune.sparse.layers import Weight, with_weight
from stages.prune.sparse.masks import Floats

LARGEST = 2**24
"""Numbers of rows that are held at once."""


def input_sums(
    module: nn.Module, weights: Sequence[Weight], kind: Literal["squares", "products"], ctx: Context, examples: int
) -> dict[str, Floats]:
    """For each weight whose layers are called the sums over the rows x that it meets, by its name.

    Args:
        module: not changed.
        weights: those of which it is wanted; for others than `is_met` there is none.
        kind: squares (groups, width), or products x x^T (groups, width, width), in fp32.
        ctx: its calibration data are read.
        examples: of these at most.

    Raises:
        StageError: inputs of a layer are not finite.
    """
    sums = moments.input_sums(module, _names(weights), rows_of, kind, ctx, examples)
    return {name: total.numpy() for name, total in sums.items()}


def output_errors(
    module: nn.Module, weights: Sequence[Weight], changed: Mapping[str, Tensor], ctx: Context, examples: int
) -> dict[str, float]:
    """For each changed weight whose layers are called the squared change of their outputs as a share of these.

    Args:
        module: with the weights as they were; not changed.
        weights, ctx, examples: as in `input_sums`.
        changed: the weights as they are to be, by name.
    """
    names = _names([weight for weight in weights if weight.name in changed])

    def change(name: str, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor:
        old = layer.get_parameter("weight").detach()
        values: Tensor = with_weight(layer, changed[names[name]].to(old.device) - old).forward(*args, **named)
        return values

    return moments.output_changes(module, names, change, ctx, examples)


def rows_of(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Tensor]:
    """What a layer's weight is multiplied with in a call: (groups, positions, width), a part at a time.

    A convolution with a weight of a single one in each output channel gives it, whatever its stride, its padding and
    its dilation, and a transposed one likewise; the width is in the order of `Weight.places`.

    Args:
        layer: a convolution or linear layer.
        args, named: of its call.
    """
    rest = dict(named)
    values, *others = args or (rest.pop("input"),)
    if not isinstance(layer, _ConvNd):
        yield values.reshape(1, -1, values.shape[-1]).float()
        return
    unit = with_weight(layer, _single_ones(layer).to(values))
    batch = values if values.dim() == 2 + len(layer.kernel_size) else values[None]
    for part in batch.split(max(1, LARGEST // max(1, batch[:1].numel() * layer.weight[0, 0].numel()))):
        rows = unit.forward(part, *others, **rest).flatten(2).unflatten(1, (layer.groups, -1))
        yield rows.permute(1, 0, 3, 2).flatten(1, 2).float()


def _single_ones(layer: _ConvNd) -> Tensor:
    """A weight that gives each input channel at each position of the kernel as an output channel of its group."""
    channels, kernel = layer.in_channels // layer.groups, layer.kernel_size
    width = channels * torch.Size(kernel).numel()
    ones = torch.eye(width).view(width, *kernel, channels).movedim(-1, 1)  # (width, channels, kernel ...)
    if isinstance(layer, _ConvTransposeNd):
        ones = ones.transpose(0, 1)
    return ones.repeat(layer.groups, *[1] * (ones.dim() - 1))


def _names(weights: Sequence[Weight]) -> dict[str, str]:
    """Layer -> the weight that it has, as far as what that meets can be seen."""
    return {layer: weight.name for weight in weights if weight.is_met for layer in weight.layers}
