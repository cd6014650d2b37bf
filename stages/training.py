"""The one training loop, on Hugging Face Accelerate. Stages differ in the objective that they hand to it."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.optim import lr_scheduler

from pipeline.errors import StageError, blame
from pipeline.measure.accuracy import mean_score
from pipeline.model import Inputs, Model, Outputs, TorchModel, call
from pipeline.stage import Context
from pipeline.task import Batch, kind
from stages.losses.logits import distillation_loss

Objective = Callable[[Batch, Outputs], Tensor]
"""(batch, the trained model's outputs on it) -> scalar loss."""

KEPT_BYTES = 2**30  # of a teacher's logits in memory, at most
STEPS_BETWEEN_CHECKS = 20  # of the loss for NaN; each check waits for the device


class TrainingSettings(BaseModel):
    """How to train; the settings of every stage that does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=20, gt=0, description="passes over the training split")
    batch_size: int = Field(default=64, gt=0, description="examples a step, over all processes")
    learning_rate: float = Field(default=1e-3, gt=0, description="its peak, after warm-up")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="sgd has Nesterov momentum 0.9")
    weight_decay: float = Field(default=0.01, ge=0, description="decoupled with adamw")
    schedule: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="after warm-up, to zero")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps that the rate takes to rise")
    gradient_clip: float | None = Field(default=1.0, gt=0, description="largest norm of the gradient; null for none")
    patience: int | None = Field(default=None, gt=0, description="stop after so many epochs without a better score")
    workers: int = Field(default=0, ge=0, description="processes that load data")


def train(
    model: TorchModel, objective: Objective, settings: TrainingSettings, ctx: Context, name: str = "training"
) -> TorchModel:
    """A model with trained weights: those of the epoch with the best validation score.

    Keeps best and last weights as safetensors in `ctx.directory / name` and reports its history under `name`.

    Args:
        model: where to start; it is not changed.
        objective: what to minimize.
        settings: how.
        ctx: the data and the place.

    Raises:
        StageError: the loss is not finite, or not a scalar.
    """
    accelerator = Accelerator(cpu=ctx.device.type == "cpu")
    trained = replace(model, module=copy.deepcopy(model.module))
    steps = max(len(ctx.train) // settings.batch_size, 1)
    optimizer = make_optimizer(trained.module, settings)
    schedule = make_schedule(optimizer, settings, settings.epochs * steps)
    module, optimizer = accelerator.prepare(trained.module, optimizer)
    keeper = _Keeper(trained, ctx, name)
    with ctx.progress(name, settings.epochs * steps) as advance:
        for epoch in range(settings.epochs):
            loader = ctx.train.loader(
                settings.batch_size, order=(ctx.seed, epoch), augment=ctx.augment, workers=settings.workers
            )
            loader = prepare_data_loader(loader, accelerator.device, split_batches=True, put_on_device=True)
            module.train()
            total = torch.zeros((), device=accelerator.device)
            for step, batch in enumerate(loader, 1):
                loss = scalar(objective(batch, call(module, batch.inputs)))
                optimizer.zero_grad()
                accelerator.backward(loss)
                if settings.gradient_clip:
                    accelerator.clip_grad_norm_(module.parameters(), settings.gradient_clip)
                optimizer.step()
                schedule.step()
                total += loss.detach()
                if step % STEPS_BETWEEN_CHECKS == 0 or step == steps:
                    keeper.refuse_nan(total, epoch)
                    advance(0, f"loss {float(total) / step:.4f}")
                advance(1)
            keeper.keep(epoch, float(total) / steps, optimizer.param_groups[0]["lr"])
            if settings.patience and epoch - keeper.best_epoch >= settings.patience:
                break
    keeper.restore_best()
    accelerator.free_memory()
    ctx.report(name, keeper.history)
    return replace(model, module=trained.module.to("cpu"))


def make_optimizer(module: nn.Module, settings: TrainingSettings) -> Any:
    """The optimizer that the settings name, over all parameters that want gradients."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)


def make_schedule(optimizer: Any, settings: TrainingSettings, steps: int) -> lr_scheduler.LRScheduler:
    """Linear warm-up to the peak, then cosine or linear decay to zero, or none, over `steps` in all."""
    rise = math.ceil(settings.warmup * steps)
    fall = max(steps - rise, 1)
    after: lr_scheduler.LRScheduler
    if settings.schedule == "cosine":
        after = lr_scheduler.CosineAnnealingLR(optimizer, T_max=fall)
    else:
        end = 0.0 if settings.schedule == "linear" else 1.0
        after = lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=end, total_iters=fall)
    if not rise:
        return after
    before = lr_scheduler.LinearLR(optimizer, start_factor=1 / (rise + 1), total_iters=rise)
    return lr_scheduler.SequentialLR(optimizer, [before, after], milestones=[rise])


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
    """The teacher's logits for a batch of train, computed once an example where no augmentation changes the inputs."""
    forward = frozen(teacher, ctx.device)
    kept: dict[int, Tensor] = {}

    def taught(batch: Batch) -> Tensor:
        index = batch.index.tolist()
        if all(i in kept for i in index):
            return torch.stack([kept[i] for i in index])
        logits = first(forward(batch.inputs))
        if ctx.augment is None and logits[0].nbytes * len(ctx.train) <= KEPT_BYTES:
            kept.update(zip(index, logits, strict=True))
        return logits

    return taught


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


class _Keeper:
    """Validates after each epoch and keeps the best and the last weights on disk."""

    def __init__(self, model: TorchModel, ctx: Context, name: str) -> None:
        self.model, self.ctx = model, ctx
        self.folder = ctx.directory / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.history: list[Any] = []
        self.best_epoch, self.best_score = 0, -math.inf
        self._save("last")

    def keep(self, epoch: int, loss: float, rate: float) -> None:
        self.model.module.eval()
        score = mean_score(self.model, self.ctx.validation, decode=self.ctx.decode, score=self.ctx.score)
        self.history.append({"epoch": epoch, "loss": loss, "validation_score": score, "learning_rate": rate})
        self._save("last")
        if score > self.best_score:
            self.best_epoch, self.best_score = epoch, score
            self._save("best")
        self.ctx.log.debug("epoch %d: loss %.4f, validation score %.4f", epoch, loss, score)

    def refuse_nan(self, total: Tensor, epoch: int) -> None:
        if not torch.isfinite(total):
            kept = self.folder / "last.safetensors"
            raise StageError(
                f"the loss became {float(total)} in epoch {epoch}",
                expected="a finite loss",
                fix=f"Lower learning_rate or gradient_clip; the last finite weights are in {kept}",
            )

    def restore_best(self) -> None:
        load_model(self.model.module, str(self.folder / "best.safetensors"))

    def _save(self, name: str) -> None:
        save_model(self.model.module, str(self.folder / f"{name}.safetensors"))
