"""What calibration data tells of layers: the second moment of what they read, and how far factors are from them."""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.forms.tracing import slow_path
from pipeline.model import TorchModel, call
from pipeline.stage import Context
from stages.prune.coupling.parts import axis_of

BATCH = 64

See = Callable[[str, Tensor, Tensor], None]
"""Is given a layer's name, what it read and what it gave, the channels last."""


def roots(model: TorchModel, names: Sequence[str], ctx: Context) -> dict[str, Tensor]:
    """For each layer a root of the second moment: (in, in), root root^T is the sum of x x^T over calibration data.

    An x is what a linear layer reads, or of a convolution the channels at one place.

    Raises:
        StageError: what a layer reads is not finite, or it does not run.
    """
    moments: dict[str, Tensor] = {}

    def see(name: str, inputs: Tensor, output: Tensor) -> None:
        rows = inputs.flatten(0, -2).float()
        moments[name] = moments.get(name, torch.zeros(())) + (rows.mT @ rows).double().cpu()

    _watch(model, names, ctx, see)
    if wrong := next((name for name, moment in moments.items() if not moment.isfinite().all()), None):
        raise StageError(f"what `{wrong}` reads is not finite", fix="Look for NaN in the calibration data")
    pairs = {name: torch.linalg.eigh(moment) for name, moment in moments.items()}
    return {name: vectors * energies.clamp_min(0).sqrt() for name, (energies, vectors) in pairs.items()}


def errors(before: TorchModel, after: TorchModel, names: Sequence[str], ctx: Context) -> dict[str, float]:
    """For each layer |y' - y| / |y| over calibration data: what it gives y, and its factors of the same inputs y'."""
    sequences = {name: copy.deepcopy(after.module.get_submodule(name)).to(ctx.device) for name in names}
    sums: dict[str, Tensor] = {}

    def see(name: str, inputs: Tensor, output: Tensor) -> None:
        axis = axis_of(before.module.get_submodule(name), output)
        other = sequences[name](inputs.movedim(-1, axis)).movedim(axis, -1)
        squares = [values.double().square().sum().cpu() for values in (other - output, output)]
        sums[name] = sums.get(name, torch.zeros(2)) + torch.stack(squares)

    _watch(before, names, ctx, see)
    return {name: float((lost / whole.clamp_min(1e-300)).sqrt()) for name, (lost, whole) in sums.items()}


def _watch(model: TorchModel, names: Sequence[str], ctx: Context, see: See) -> None:
    """Have each layer seen on calibration data. Raises StageError where one does not run."""
    from accelerate.utils import send_to_device  # takes its time

    module, silent = copy.deepcopy(model.module).to(ctx.device), {*names}

    def look(name: str, part: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        inputs = next(iter((*args, *kwargs.values())))
        silent.discard(name)
        see(name, *(values.movedim(axis_of(part, output), -1) for values in (inputs, output)))

    with ExitStack() as hooks, torch.no_grad(), slow_path():
        for name in names:
            hooks.enter_context(module.get_submodule(name).register_forward_hook(partial(look, name), with_kwargs=True))
        for batch in ctx.calibration.loader(BATCH):
            call(module, send_to_device(batch.inputs, ctx.device))
    if silent:
        problem = f"`{min(silent)}` runs on none of the calibration examples"
        raise StageError(problem, fix="Name it in `ignore`, or give calibration data that it runs on")
