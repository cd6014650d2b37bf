"""What a training minimizes: labels, a teacher's logits, or both. Training, distillation and recovery share these."""

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.errors import Interruption, StageError, blame
from pipeline.model import Inputs, Model, Outputs, TorchModel
from pipeline.stage import Context
from pipeline.task import Batch, kind
from stages.losses.logits import distillation_loss

Objective = Callable[[Batch, Outputs], Tensor]
"""(batch, the trained model's outputs on it) -> scalar loss."""

KEPT_BYTES = 2**30  # of a teacher's logits in memory, at most
BATCH_SIZE = 256


def supervised(ctx: Context) -> Objective:
    """The task's loss against the labels."""

    def objective(batch: Batch, outputs: Outputs) -> Tensor:
        with blame(StageError, "the task's loss", fix="Look at the targets' range and shape"):
            return ctx.loss(outputs, batch.targets)

    return objective


def distill(teacher: Model, ctx: Context, *, temperature: float, hard_weight: float) -> Objective:
    """Hinton's loss against a frozen teacher of either form, on the first output of both.

    Args:
        teacher: what to learn from.
        temperature, hard_weight: see `stages.losses.logits`.
    """
    taught, labels = taught_logits(teacher, ctx), supervised(ctx)

    def objective(batch: Batch, outputs: Outputs) -> Tensor:
        logits, target = first(outputs), taught(batch)
        if logits.shape != target.shape:
            raise StageError(
                f"the student gives logits {tuple(logits.shape)}, the teacher {tuple(target.shape)}",
                expected="the same shape",
                fix="Give the student the teacher's number of classes",
            )
        hard = labels(batch, outputs) if hard_weight > 0 else logits.new_zeros(())
        return distillation_loss(logits, target, hard, temperature=temperature, hard_weight=hard_weight)

    return objective


def taught_logits(teacher: Model, ctx: Context) -> Callable[[Batch], Tensor]:
    """The teacher's logits for a batch of train: all computed once, unless augmentation changes the inputs each time.

    They are computed in the order of the examples, so that they are the same to the bit after a restart.
    """
    forward = frozen(teacher, ctx.device)
    batches = iter(ctx.train.loader(BATCH_SIZE))
    start = first(forward(next(batches).inputs))
    if ctx.augment or start[0].nbytes * len(ctx.train) > KEPT_BYTES:
        return lambda batch: first(forward(batch.inputs))
    with ctx.progress("the teacher's logits", len(ctx.train)) as advance:
        kept = [start]
        advance(len(start))
        for batch in batches:
            if ctx.interrupted():
                raise Interruption("stopped while the teacher's logits were computed")
            kept.append(first(forward(batch.inputs)))
            advance(len(batch.index))
    logits = torch.cat(kept)
    return lambda batch: logits[batch.index]


def frozen(model: Model, device: torch.device) -> Callable[[Inputs], Outputs]:
    """The model's forward without gradients, with outputs on `device`."""
    if isinstance(model, TorchModel) and device.type != "cpu":
        model = replace(model, module=copy.deepcopy(model.module).to(device))

    def forward(inputs: Inputs) -> Outputs:
        return {name: value.to(device) for name, value in model.predict(inputs).items()}

    return forward


def first(outputs: Outputs) -> Tensor:
    """The first output: by convention the logits."""
    return next(iter(outputs.values()))


def scalar(loss: Tensor) -> Tensor:
    """The loss itself. Raises StageError when it is not a scalar."""
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        raise StageError(f"the loss is {kind(loss)}", expected="a scalar tensor", fix="Reduce it, such as by .mean()")
    return loss
