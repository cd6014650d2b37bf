"""What calibration data tells of layers: the second moment of what they read, and how far factors are from them."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.model import TorchModel
from stages.layerwise.moments import input_sums, output_changes
from stages.prune.coupling.parts import axis_of
from stages.prune.sparse.inputs import rows_of


def roots(model: TorchModel, names: Sequence[str], ctx: Context) -> dict[str, Tensor]:
    """For each layer a root of the second moment: (in, in), root root^T is the sum of x x^T over calibration data.

    An x is what the weight is multiplied with, or of a convolution with a kernel the channels at one place.

    Raises:
        StageError: what a layer reads is not finite, or it does not run.
    """
    moments = input_sums(model.module, {name: name for name in names}, _rows, "products", ctx, dtype=torch.float64)
    _expect_all(moments, names)
    pairs = {name: torch.linalg.eigh(moment) for name, moment in moments.items()}
    return {name: vectors * energies.clamp_min(0).sqrt() for name, (energies, vectors) in pairs.items()}


def errors(before: TorchModel, after: TorchModel, names: Sequence[str], ctx: Context) -> dict[str, float]:
    """For each layer |y' - y| / |y| over calibration data: what it gives y, and its factors of the same inputs y'."""
    factors = {name: copy.deepcopy(after.module.get_submodule(name)).to(ctx.device) for name in names}

    def change(name: str, part: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor:
        values: Tensor = factors[name](*args, **named) - output
        return values

    shares = output_changes(before.module, {name: name for name in names}, change, ctx)
    _expect_all(shares, names)
    return {name: shares[name] ** 0.5 for name in names}


def _expect_all(seen: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise StageError for a layer of which nothing was seen."""
    if silent := [name for name in names if name not in seen]:
        problem = f"`{silent[0]}` runs on none of the calibration examples"
        raise StageError(problem, fix="Name it in `ignore`, or give calibration data that it runs on")


def _rows(part: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Iterable[Tensor]:
    """What a layer reads, in rows (n, in)."""
    kernel = part.get_parameter("weight").shape[2:]
    if prod(kernel) == 1:
        return (rows[0] for rows in rows_of(part, args, named))
    values = next(iter((*args, *named.values())))
    return [values.movedim(axis_of(part, values), -1).flatten(0, -2).float()]
