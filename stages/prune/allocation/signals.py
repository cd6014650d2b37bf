"""What calibration data say of weights and channels: gradients of the task's loss, and values that layers read."""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.context import Context
from pipeline.errors import StageError, blame
from pipeline.model import TorchModel, call
from stages.layerwise.calibration import watch
from stages.prune.coupling.cells import given
from stages.prune.coupling.parts import LAYERS, axis_of

BATCH = 32


def gradients(model: TorchModel, ctx: Context) -> nn.Module:
    """A copy on the CPU, with the gradient of the task's loss summed over the calibration batches in `.grad`."""
    module = _trainable(model, ctx)
    for loss in _losses(module, ctx, BATCH):
        torch.autograd.backward(loss)
    return _complete(module)


def squared_gradients(model: TorchModel, ctx: Context) -> nn.Module:
    """A copy on the CPU, with the mean over the calibration examples of the squared gradient of their loss in `.grad`.

    That is the diagonal of the empirical Fisher information, which stands for that of the Hessian.
    """
    module = _trainable(model, ctx)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    sums = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters]  # squares in fp16 are zeros
    count = len(ctx.calibration)
    with ctx.progress("gradients of examples", count) as advance:
        for loss in _losses(module, ctx, 1):
            for total, gradient in zip(sums, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
                if gradient is not None:
                    total += gradient.float().square() / count
            advance(1)
    module.float()
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.grad = total
    return _complete(module)


def magnitudes_read(model: TorchModel, ctx: Context) -> dict[str, Tensor]:
    """Layer -> (inputs,) the mean absolute value of each channel that a layer with weights reads.

    Layers that do not run on the calibration data are not in it. Of recurrent layers it is what their first cells read,
    and in place of what each cell reads of its own units from step to step, the last state.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(name: str, values: Tensor, axis: int) -> None:
        values = values.abs().movedim(axis, 0).flatten(1)
        sums[name] = sums.get(name, 0) + values.sum(1)
        counts[name] = counts.get(name, 0) + values.shape[1]

    def look(name: str, part: nn.Module, args: Any, named: Any, output: Any) -> None:
        inputs = next(iter((*args, *named.values())))
        if not isinstance(part, nn.RNNBase):
            add(name, inputs, axis_of(part, inputs))
            return
        for end, values in given(part, output).items():
            add(f"{name}.{end}.state", values[0], -1)
            if end in ("l0", "l0_reverse"):
                add(f"{name}.{end}", getattr(inputs, "data", inputs), -1)

    layers = [name for name, part in model.module.named_modules() if isinstance(part, (*LAYERS, nn.RNNBase))]
    watch(model.module, {name: partial(look, name) for name in layers}, "what layers read", ctx)
    return {name: (total / counts[name]).cpu() for name, total in sums.items()}


def _trainable(model: TorchModel, ctx: Context) -> nn.Module:
    """A copy that predicts the same and gives gradients: those of recurrent layers cuDNN has in training mode alone."""
    module = copy.deepcopy(model.module).requires_grad_(True).to(ctx.device)
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            part.train().dropout = 0.0
    return module


def _losses(module: nn.Module, ctx: Context, size: int) -> Iterator[Tensor]:
    for batch in ctx.calibration.loader(size):
        inputs, targets = _on(ctx, (batch.inputs, batch.targets))
        with blame(StageError, "the task's loss"), torch.enable_grad():
            loss = ctx.loss(call(module, inputs), targets)
        yield loss


def _complete(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return module.cpu()


def _on(ctx: Context, values: Any) -> Any:
    from accelerate.utils import send_to_device  # takes its time

    return send_to_device(values, ctx.device)
