"""What weights are multiplied with, and what changed weights do to outputs, seen on calibration data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from pipeline.errors import StageError
from pipeline.stage import Context
from stages.layerwise.calibration import watch
from stages.prune.sparse.layers import Weight, with_weight
from stages.prune.sparse.masks import Floats

LARGEST = 2**24
"""Numbers of rows that are held at once."""
Look = Callable[[Weight, nn.Module, tuple[Any, ...], dict[str, Any], Tensor], None]
"""(weight, a layer that has it, its arguments by position, by name, its output)."""


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
    sums: dict[str, Tensor] = {}

    def look(weight: Weight, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], _: Tensor) -> None:
        for rows in rows_of(layer, args, named):
            new = rows.square().sum(1) if kind == "squares" else rows.mT @ rows
            sums[weight.name] = sums[weight.name] + new if weight.name in sums else new

    _watch(module, weights, look, "what weights meet", ctx, examples)
    if wrong := [name for name, total in sums.items() if not torch.isfinite(total).all()]:
        problem = f"the calibration data give `{wrong[0]}` inputs that are not finite"
        raise StageError(problem, expected="numbers", fix="Look for NaN in the data or the weights")
    return {name: total.cpu().numpy() for name, total in sums.items()}


def output_errors(
    module: nn.Module, weights: Sequence[Weight], changed: Mapping[str, Tensor], ctx: Context, examples: int
) -> dict[str, float]:
    """For each changed weight whose layers are called the squared change of their outputs as a share of these.

    Args:
        module: with the weights as they were; not changed.
        weights, ctx, examples: as in `input_sums`.
        changed: the weights as they are to be, by name.
    """
    sums: dict[str, Tensor] = {}

    def look(weight: Weight, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        old = layer.get_parameter("weight").detach()
        change = with_weight(layer, changed[weight.name].to(old.device) - old).forward(*args, **named)
        new = torch.stack([change.double().square().sum(), output.double().square().sum()])
        sums[weight.name] = sums[weight.name] + new if weight.name in sums else new

    _watch(module, [weight for weight in weights if weight.name in changed], look, "errors of outputs", ctx, examples)
    return {name: float(change / total.clamp_min(1e-30)) for name, (change, total) in sums.items()}


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


def _watch(
    module: nn.Module, weights: Sequence[Weight], look: Look, description: str, ctx: Context, examples: int
) -> None:
    """Have `look` see each call of the layers that have these weights."""
    looks = {name: partial(look, weight) for weight in weights if weight.is_met for name in weight.layers}
    watch(module, looks, description, ctx, examples)
