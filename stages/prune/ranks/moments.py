"""What calibration data tells of layers: the second moment of what they read, and how far factors are from them."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.model import TorchModel
from pipeline.stage import Context
from stages.layerwise.calibration import Look, watch
from stages.prune.coupling.parts import axis_of
from stages.prune.sparse.inputs import rows_of


def roots(model: TorchModel, names: Sequence[str], ctx: Context) -> dict[str, Tensor]:
    """For each layer a root of the second moment: (in, in), root root^T is the sum of x x^T over calibration data.

    An x is what the weight is multiplied with, or of a convolution with a kernel the channels at one place.

    Raises:
        StageError: what a layer reads is not finite, or it does not run.
    """
    moments: dict[str, Tensor] = {}

    def look(name: str, part: nn.Module, args: Any, named: Any, output: Tensor) -> None:
        for rows in _channels(part, args, named):
            moments[name] = moments.get(name, torch.zeros(())) + (rows.mT @ rows).double().cpu()

    _watch(model, {name: partial(look, name) for name in names}, "what layers read", moments, ctx)
    if wrong := next((name for name, moment in moments.items() if not moment.isfinite().all()), None):
        raise StageError(f"what `{wrong}` reads is not finite", fix="Look for NaN in the calibration data")
    pairs = {name: torch.linalg.eigh(moment) for name, moment in moments.items()}
    return {name: vectors * energies.clamp_min(0).sqrt() for name, (energies, vectors) in pairs.items()}


def errors(before: TorchModel, after: TorchModel, names: Sequence[str], ctx: Context) -> dict[str, float]:
    """For each layer |y' - y| / |y| over calibration data: what it gives y, and its factors of the same inputs y'."""
    sums: dict[str, Tensor] = {}

    def look(name: str, factors: nn.Module, part: nn.Module, args: Any, named: Any, output: Tensor) -> None:
        squares = [values.double().square().sum().cpu() for values in (factors(*args, **named) - output, output)]
        sums[name] = sums.get(name, torch.zeros(2)) + torch.stack(squares)

    copies = {name: copy.deepcopy(after.module.get_submodule(name)).to(ctx.device) for name in names}
    looks = {name: partial(look, name, factors) for name, factors in copies.items()}
    _watch(before, looks, "errors of outputs", sums, ctx)
    return {name: float((lost / whole.clamp_min(1e-300)).sqrt()) for name, (lost, whole) in sums.items()}


def _watch(model: TorchModel, looks: Mapping[str, Look], what: str, seen: Mapping[str, Any], ctx: Context) -> None:
    watch(model.module, looks, what, ctx)
    if silent := [name for name in looks if name not in seen]:
        problem = f"`{silent[0]}` runs on none of the calibration examples"
        raise StageError(problem, fix="Name it in `ignore`, or give calibration data that it runs on")


def _channels(part: nn.Module, args: Any, named: Any) -> Any:
    """What a layer reads, in rows (n, in)."""
    kernel = part.get_parameter("weight").shape[2:]
    if prod(kernel) == 1:
        return (rows[0] for rows in rows_of(part, args, named))
    values = next(iter((*args, *named.values())))
    return [values.movedim(axis_of(part, values), -1).flatten(0, -2).float()]
