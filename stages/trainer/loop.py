"""The one training loop, on Hugging Face Accelerate. Stages differ in the objective that they hand to it.

A training that was stopped or killed goes on from its newest checkpoint and ends with the same weights, to the bit on
one machine, as one that was not.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.context import Context
from pipeline.errors import Interruption, StageError
from pipeline.forms.weights import state_digest
from pipeline.measure.accuracy import BATCH_SIZE, scores_on_validation
from pipeline.model import TorchModel, call
from pipeline.task import Batch
from stages.trainer import checkpoint
from stages.trainer.choice import is_as_good
from stages.trainer.objective import Objective, Progress, scalar
from stages.trainer.settings import TrainingSettings, lay_out, make_accelerator, make_optimizer, make_schedule
from stages.trainer.zeros import hold_gradients

STEPS_BETWEEN_CHECKS = 20  # of the loss for NaN; each check waits for the device


def train(
    model: TorchModel, objective: Objective, settings: TrainingSettings, ctx: Context, name: str = "training"
) -> TorchModel:
    """A model with trained weights: those of the last epoch that validates as well as the best one does.

    What is as good, `is_as_good` says. With an objective that `keeps_last` it has those of the last epoch.

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
    rising_epoch: int = 0  # the last one in which the best score rose
    best_epoch: int = -1  # the last one whose weights were kept
    best_score: float = -math.inf
    best_scores: list[float] = field(default_factory=list)  # of each validation example, in that epoch
    history: list[Any] = field(default_factory=list)
    scaler: dict[str, Any] | None = None


class _Learner(nn.Module):
    """What is trained: the student, and what the objective adds to it; gives the loss of a batch.

    One module holds both, so that gradients of adapters are averaged over processes like all others.
    """

    def __init__(self, student: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.student, self.objective = student, objective
        objective.watch(student)

    def forward(self, batch: Batch, progress: Progress) -> Tensor:
        """The loss of a batch."""
        return scalar(self.objective(batch, call(self.student, batch.inputs), progress))


class _Loop:
    """One training, from its start or its newest checkpoint to its end."""

    def __init__(
        self, model: TorchModel, objective: Objective, settings: TrainingSettings, ctx: Context, folder: Path
    ) -> None:
        self.settings, self.ctx, self.folder, self.views = settings, ctx, folder, objective.views
        self.accelerator = make_accelerator(settings, ctx)
        self.trained = replace(model, module=copy.deepcopy(model.module))
        self.steps = max(len(ctx.train) // settings.batch_size, 1)
        self.whole = _Learner(self.trained.module, objective)
        hold_gradients(self.trained.module)
        if settings.channels_last:
            lay_out(self.whole, torch.channels_last)
        self.optimizer = make_optimizer(self.whole, settings)
        self.schedule = make_schedule(self.optimizer, settings, settings.epochs * self.steps)
        self.learner, self.stepper = self.accelerator.prepare(self.whole, self.optimizer)
        self.origin = _digest(settings, ctx.seed, self.whole)
        folder.mkdir(parents=True, exist_ok=True)
        number = checkpoint.newest(folder, self.origin, self._left_out) if ctx.world.main else None
        number = ctx.world.broadcast(number)
        saved_place = {}
        if number is not None:
            saved_place = checkpoint.restore(folder, number, self.whole, self.optimizer, self.schedule)
        self.place = Place(**saved_place)
        if self.accelerator.scaler and self.place.scaler:
            self.accelerator.scaler.load_state_dict(self.place.scaler)
        ctx.world.wait()  # all have read before one writes
        if saved_place:
            ctx.log.info("%s goes on at epoch %d, step %d", folder.name, self.place.epoch, self.place.step)
        else:
            self._checkpoint()

    def run(self, advance: Callable[..., None]) -> None:
        """Train until the epochs or the patience end."""
        advance(self.place.epoch * self.steps + self.place.step)
        patience = self.settings.patience or self.settings.epochs
        while self.place.epoch < self.settings.epochs:
            if self.place.history and self.place.epoch - 1 - self.place.rising_epoch >= patience:
                break
            self._epoch(advance)
            self._close_epoch()
        self._checkpoint()

    def best_module(self) -> nn.Module:
        """The module with the weights that were kept, on the CPU."""
        self.ctx.world.wait()
        self.whole.objective.unwatch()
        checkpoint.load_best(self.trained.module, self.folder, self.origin)
        self.ctx.world.wait()  # rank 0 may clear the folder away
        if self.accelerator.device.type == "cuda":  # elsewhere it would only collect garbage, for a fifth of a second
            self.accelerator.free_memory()
        lay_out(self.trained.module, torch.contiguous_format)
        return self.trained.module.to("cpu")

    def _epoch(self, advance: Callable[..., None]) -> None:
        """The steps of an epoch that are not done yet."""
        place, world = self.place, self.ctx.world
        total = torch.tensor(place.total, device=self.accelerator.device)
        self.learner.train()
        for parts in self._batches():
            if world.size > 1:  # each process its own noise, such as dropout's, the same after a restart
                numbers = str((self.ctx.seed, place.epoch, place.step, world.rank))
                torch.manual_seed(int(hashlib.sha256(numbers.encode()).hexdigest()[:15], 16))
            total += self._step(parts)
            place.step += 1
            if place.step % STEPS_BETWEEN_CHECKS == 0 or place.step == self.steps:
                self._refuse_nan(world.mean(total))
                advance(0, f"loss {float(total) / place.step:.4f}")
            advance(1)
            if world.any(self.ctx.interrupted()):
                place.total = self._refuse_nan(world.mean(total))
                self._checkpoint()
                raise Interruption(f"stopped in epoch {place.epoch} after step {place.step}")
        place.total = float(world.mean(total))

    def _batches(self) -> Iterator[list[Batch]]:
        """The steps that are left of this epoch, each as the parts of its batch for this process."""
        from accelerate.data_loader import prepare_data_loader

        place, parts = self.place, self.settings.accumulate
        device, whole = self.accelerator.device, parts * self.ctx.world.size
        loader = self.ctx.train.loader(
            max(min(self.settings.batch_size, len(self.ctx.train)) // whole, 1) * self.ctx.world.size,
            order=(self.ctx.seed, place.epoch),
            view=self._progress.view,
            augment=self.ctx.augment,
            workers=self.settings.workers,
            skip=place.step * parts,
            pin=device.type == "cuda",
            similar=True,
        )
        batches = iter(prepare_data_loader(loader, device, split_batches=True, put_on_device=True))
        for _ in range(place.step, self.steps):
            yield list(islice(batches, parts))

    @property
    def _progress(self) -> Progress:
        epoch, step = self.place.epoch, self.place.step
        done = (epoch * self.steps + step) / (self.settings.epochs * self.steps)
        return Progress(epoch, epoch % self.views if self.views else epoch, done)

    def _step(self, parts: list[Batch]) -> Tensor:
        """One step of the optimizer on a batch, given in parts; gives its loss."""
        total = torch.zeros((), device=self.accelerator.device)
        self.stepper.zero_grad()
        for i, batch in enumerate(parts):
            last = i + 1 == len(parts)
            with nullcontext() if last else self.accelerator.no_sync(self.learner):
                loss = self.learner(batch, self._progress) / len(parts)
                self.accelerator.backward(loss)
            total += loss.detach()
        if self.settings.gradient_clip:
            self.accelerator.clip_grad_norm_(self.learner.parameters(), self.settings.gradient_clip)
        self.stepper.step()
        self.schedule.step()
        return total

    def _close_epoch(self) -> None:
        """Validate, note the figures, keep the weights if they are as good as the best yet."""
        place, ctx = self.place, self.ctx
        self.learner.eval()
        scores = self._validated() if ctx.world.main else None
        score = ctx.world.broadcast(None if scores is None else float(scores.mean()))
        row = {"epoch": place.epoch, "loss": place.total / self.steps, "validation_score": score}
        place.history.append({**row, "learning_rate": self.optimizer.param_groups[0]["lr"]})
        if score > place.best_score:
            place.rising_epoch, place.best_score = place.epoch, score
            place.best_scores = [] if scores is None else scores.tolist()
        # Where the score is at its ceiling, training goes on to make the weights better.
        if scores is not None and (self.whole.objective.keeps_last or is_as_good(scores, place.best_scores)):
            place.best_epoch = place.epoch
            checkpoint.keep(self.trained.module, self.folder, self.origin)
        ctx.log.debug("epoch %d: loss %.4f, validation score %.4f", place.epoch, row["loss"], score)
        place.epoch, place.step, place.total = place.epoch + 1, 0, 0.0
        if place.epoch % self.settings.checkpoint_epochs == 0:
            self._checkpoint()

    def _validated(self) -> Tensor:
        return scores_on_validation(self.trained, self.ctx.task, BATCH_SIZE, lambda steps: None)

    def _refuse_nan(self, total: Tensor) -> float:
        if not torch.isfinite(total):
            problem = f"the loss became {float(total)} in epoch {self.place.epoch}"
            fix = f"Lower learning_rate or gradient_clip; the last finite weights are in {self.folder}"
            raise StageError(problem, expected="a finite loss", fix=fix)
        return float(total)

    def _left_out(self, text: str) -> None:
        """Say that a checkpoint is damaged, now and in the record."""
        self.ctx.log.warning(text)
        self.ctx.warn(text)

    def _checkpoint(self) -> None:
        if self.ctx.world.main:
            self.place.scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
            checkpoint.save(self.folder, self.origin, self.whole, self.optimizer, self.schedule, asdict(self.place))


def _digest(settings: TrainingSettings, seed: int, module: nn.Module) -> str:
    """Tells trainings apart by settings, seed, the weights that they begin with, and what a checkpoint holds."""
    parts = f"{settings.model_dump_json()} {seed} {state_digest(module)} {[*Place.__dataclass_fields__]}"
    return hashlib.sha256(parts.encode()).hexdigest()
