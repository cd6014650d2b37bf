"""The one training loop, on Hugging Face Accelerate. Stages differ in the objective that they hand to it.

A training that was stopped or killed goes on from its newest checkpoint and ends with the same weights, to the bit on
one machine, as one that was not.
"""

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.optim import lr_scheduler

from pipeline.errors import Interruption, StageError
from pipeline.measure.accuracy import mean_score
from pipeline.model import TorchModel, call
from pipeline.stage import Context
from pipeline.task import Batch
from stages import checkpoint
from stages.objectives import Objective, scalar

STEPS_BETWEEN_CHECKS = 20  # of the loss for NaN; each check waits for the device


class TrainingSettings(BaseModel):
    """How to train; the settings of every stage that does."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(default=20, gt=0, description="passes over the training split")
    batch_size: int = Field(default=64, gt=0, description="examples a step, over all processes")
    learning_rate: float = Field(default=1e-3, gt=0, description="its peak, after warm-up")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="sgd has Nesterov momentum 0.9")
    weight_decay: float = Field(default=0.01, ge=0, description="decoupled with adamw")
    schedule: Literal["cosine", "linear", "constant"] = Field(default="cosine", description="after warm-up, to zero")
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps that the rate takes to rise")
    gradient_clip: float | None = Field(default=1.0, gt=0, description="largest norm of the gradient; null for none")
    patience: int | None = Field(default=None, gt=0, description="stop after so many epochs without a better score")
    checkpoint_epochs: int = Field(default=1, gt=0, description="epochs between checkpoints, to go on after a kill")
    workers: int = Field(default=0, ge=0, description="processes that load data")


def train(
    model: TorchModel, objective: Objective, settings: TrainingSettings, ctx: Context, name: str = "training"
) -> TorchModel:
    """A model with trained weights: those of the epoch with the best validation score.

    Keeps its checkpoints in `ctx.directory / name` and goes on from the newest, if it is of a training with the same
    settings and seed that began with the same weights; reports its history under `name`.

    Args:
        model: where to start; it is not changed.
        objective: what to minimize.
        settings: how.
        ctx: the data and the place.

    Raises:
        StageError: the loss is not finite, or not a scalar.
        Interruption: a stop was asked for; the checkpoint is written.
    """
    loop = _Loop(model, objective, settings, ctx, ctx.directory / name)
    with ctx.progress(name, settings.epochs * loop.steps) as advance:
        loop.run(advance)
    ctx.report(name, loop.place.history)
    return replace(model, module=loop.best_module())


@dataclass
class Place:
    """Where a training is: `step` steps of `epoch` are done, with this sum of their losses."""

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    best_epoch: int = 0
    best_score: float = -math.inf
    history: list[Any] = field(default_factory=list)


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


class _Loop:
    """One training, from its start or its newest checkpoint to its end."""

    def __init__(
        self, model: TorchModel, objective: Objective, settings: TrainingSettings, ctx: Context, folder: Path
    ) -> None:
        self.objective, self.settings, self.ctx, self.folder = objective, settings, ctx, folder
        self.accelerator = Accelerator(cpu=ctx.device.type == "cpu")
        self.trained = replace(model, module=copy.deepcopy(model.module))
        self.steps = max(len(ctx.train) // settings.batch_size, 1)
        self.optimizer = make_optimizer(self.trained.module, settings)
        self.schedule = make_schedule(self.optimizer, settings, settings.epochs * self.steps)
        self.module, self.stepper = self.accelerator.prepare(self.trained.module, self.optimizer)
        folder.mkdir(parents=True, exist_ok=True)
        self.origin = _digest(settings, ctx.seed, self.trained.module)
        found = checkpoint.restore(folder, self.origin, self.trained.module, self.optimizer, self.schedule)
        self.place = Place(**found) if found else Place()
        if found:
            ctx.log.info("%s goes on at epoch %d, step %d", folder.name, self.place.epoch, self.place.step)
        else:
            self._checkpoint()

    def run(self, advance: Callable[..., None]) -> None:
        """Train until the epochs or the patience end."""
        advance(self.place.epoch * self.steps + self.place.step)
        patience = self.settings.patience or self.settings.epochs
        while self.place.epoch < self.settings.epochs:
            if self.place.history and self.place.epoch - 1 - self.place.best_epoch >= patience:
                break
            self._epoch(advance)
            self._close_epoch()
        self._checkpoint()

    def best_module(self) -> nn.Module:
        """The module with the weights of the best epoch, on the CPU."""
        load_model(self.trained.module, str(self.folder / "best.safetensors"))
        self.accelerator.free_memory()
        return self.trained.module.to("cpu")

    def _epoch(self, advance: Callable[..., None]) -> None:
        """The steps of an epoch that are not done yet."""
        place, order = self.place, (self.ctx.seed, self.place.epoch)
        loader = self.ctx.train.loader(
            self.settings.batch_size,
            order=order,
            augment=self.ctx.augment,
            workers=self.settings.workers,
            skip=place.step,
        )
        total = torch.tensor(place.total, device=self.accelerator.device)
        self.module.train()
        for batch in prepare_data_loader(loader, self.accelerator.device, split_batches=True, put_on_device=True):
            total += self._step(batch)
            place.step += 1
            if place.step % STEPS_BETWEEN_CHECKS == 0 or place.step == self.steps:
                self._refuse_nan(total)
                advance(0, f"loss {float(total) / place.step:.4f}")
            advance(1)
            if self.ctx.interrupted():
                self._refuse_nan(total)
                place.total = float(total)
                self._checkpoint()
                raise Interruption(f"stopped in epoch {place.epoch} after step {place.step}")
        place.total = float(total)

    def _step(self, batch: Batch) -> Tensor:
        loss = scalar(self.objective(batch, call(self.module, batch.inputs)))
        self.stepper.zero_grad()
        self.accelerator.backward(loss)
        if self.settings.gradient_clip:
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.settings.gradient_clip)
        self.stepper.step()
        self.schedule.step()
        return loss.detach()

    def _close_epoch(self) -> None:
        """Validate, note what was found, keep the weights if they are the best yet."""
        place, ctx = self.place, self.ctx
        self.module.eval()
        score = mean_score(self.trained, ctx.validation, decode=ctx.decode, score=ctx.score)
        row = {"epoch": place.epoch, "loss": place.total / self.steps, "validation_score": score}
        place.history.append({**row, "learning_rate": self.optimizer.param_groups[0]["lr"]})
        if score > place.best_score:
            place.best_epoch, place.best_score = place.epoch, score
            checkpoint.keep(self.trained.module, self.folder / "best.safetensors")
        ctx.log.debug("epoch %d: loss %.4f, validation score %.4f", place.epoch, row["loss"], score)
        place.epoch, place.step, place.total = place.epoch + 1, 0, 0.0
        if place.epoch % self.settings.checkpoint_epochs == 0:
            self._checkpoint()

    def _refuse_nan(self, total: Tensor) -> None:
        if not torch.isfinite(total):
            raise StageError(
                f"the loss became {float(total)} in epoch {self.place.epoch}",
                expected="a finite loss",
                fix=f"Lower learning_rate or gradient_clip; the last finite weights are in {self.folder}",
            )

    def _checkpoint(self) -> None:
        progress = asdict(self.place)
        checkpoint.save(self.folder, self.origin, self.trained.module, self.optimizer, self.schedule, progress)


def _digest(settings: TrainingSettings, seed: int, module: nn.Module) -> str:
    """Tells trainings apart by their settings, their seed and the weights that they begin with."""
    whole = hashlib.sha256(f"{settings.model_dump_json()} {seed}".encode())
    for name, value in module.state_dict().items():
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        whole.update(value.detach().cpu().flatten().view(torch.uint8).numpy())
    return whole.hexdigest()
