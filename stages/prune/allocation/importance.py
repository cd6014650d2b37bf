"""Which channels matter, by their weights or by what the task's loss says of them."""

import copy

import torch
from torch import nn

from pipeline.errors import StageError, blame
from pipeline.model import TorchModel, call
from pipeline.stage import Context
from stages.prune.coupling import engine
from stages.prune.coupling.engine import Coupled

TAYLOR_BATCH = 32


def with_importance(groups: list[Coupled], model: TorchModel, importance: str, ctx: Context) -> list[Coupled]:
    """The groups, which come with magnitudes, with the importance that is asked for: magnitude or taylor."""
    if importance == "magnitude":
        return groups
    return engine.scored(groups, differentiated(copy.deepcopy(model.module), ctx), importance)


def differentiated(module: nn.Module, ctx: Context) -> nn.Module:
    """The module on the CPU, with the gradient of the task's loss summed over the calibration batches in `.grad`."""
    from accelerate.utils import send_to_device  # takes its time

    module.requires_grad_(True).to(ctx.device)
    for batch in ctx.calibration.loader(TAYLOR_BATCH):
        inputs, targets = send_to_device((batch.inputs, batch.targets), ctx.device)
        with blame(StageError, "the task's loss"), torch.enable_grad():
            torch.autograd.backward(ctx.loss(call(module, inputs), targets))
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return module.cpu()
