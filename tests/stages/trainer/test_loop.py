"""The training loop: what it learns, what it keeps, when it stops, and that the same seed gives the same weights."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.base.batches import Outputs
from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.model import TorchModel
from pipeline.task import Batch, Task
from stages.trainer.loop import train
from stages.trainer.objective import Objective, Progress, Supervised
from stages.trainer.settings import TrainingSettings, make_optimizer, make_schedule
from tests.aliases import Make, Patch
from tests.trained import score, weights

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 32, "learning_rate": 0.01}


class Altered(Objective):
    """The labels' loss, changed by a function."""

    def __init__(self, ctx: Context, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.labels, self.change = Supervised(ctx), change

    def forward(self, batch: Batch, outputs: Outputs, moment: Progress) -> Any:
        return self.change(self.labels(batch, outputs, moment))


def fit(model: TorchModel, ctx: Context, **settings: Any) -> TorchModel:
    return train(model, Supervised(ctx), TrainingSettings(**{**QUICK, **settings}), ctx)


def test_training_learns_the_task(tiny: Make, context: Make) -> None:
    ctx, model = context(), tiny()
    trained = fit(model, ctx, epochs=12)
    assert score(model, ctx) < 0.5  # four classes
    assert score(trained, ctx) > 0.8
    losses = [entry["loss"] for entry in context.reports["training"]]
    assert losses[-1] < 0.7 * losses[0]


def test_the_model_that_comes_in_is_not_changed(tiny: Make, context: Make) -> None:
    model = tiny()
    before = copy.deepcopy(model.module.state_dict())
    trained = fit(model, context())
    assert trained is not model
    assert all(torch.equal(before[name], value) for name, value in model.module.state_dict().items())
    assert not model.module.training
    assert not trained.module.training
    assert not any(p.grad is not None for p in model.module.parameters())


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_the_seed_decides_the_weights_to_the_bit(tiny: Make, context: Make, seed: int, same: bool) -> None:
    first, second = fit(tiny(), context(seed=0)), fit(tiny(), context(seed=seed))
    assert torch.equal(weights(first), weights(second)) is same


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_both_optimizers_lower_the_loss(tiny: Make, context: Make, optimizer: str) -> None:
    fit(tiny(), context(), optimizer=optimizer, epochs=6)
    losses = [entry["loss"] for entry in context.reports["training"]]
    assert losses[-1] < losses[0]


def test_the_weights_of_the_best_epoch_are_what_comes_out(tiny: Make, context: Make) -> None:
    # Four epochs of 8 steps downhill and then uphill: the best epoch is not the last.
    ctx, calls = context(), iter(range(1000))
    objective = Altered(ctx, lambda loss: loss * (1 if next(calls) < 4 * 8 else -1))
    settings = TrainingSettings(**{**QUICK, "epochs": 7, "schedule": "constant"})
    trained = train(tiny(), objective, settings, ctx)
    scores = [entry["validation_score"] for entry in context.reports["training"]]
    assert scores[-1] < max(scores)
    assert score(trained, ctx) == max(scores)


@pytest.mark.parametrize("size", [1, 20])  # of a group that is right or wrong together: 20 lost are no luck
def test_the_last_epoch_that_is_as_good_as_the_best_comes_out(
    tiny: Make, context: Make, monkeypatch: Patch, size: int
) -> None:
    whole, right = list[Any](), iter([5, 9, 10, 9, 6])  # the fourth has one wrong of what the third has right

    def validated(model: TorchModel, *_: Any, **__: Any) -> Tensor:
        whole.append(copy.deepcopy(model.module.state_dict()))
        return (torch.arange(10) < next(right)).repeat_interleave(size).float()

    monkeypatch.setattr("stages.trainer.loop.scores_on_validation", validated)
    found = fit(tiny(), context(), epochs=5).module.state_dict()
    same = [all(torch.equal(found[name], value) for name, value in state.items()) for state in whole]
    assert same == [epoch == (3 if size == 1 else 2) for epoch in range(5)]


def test_kept_weights_are_safetensors_that_load(tiny: Make, context: Make) -> None:
    ctx = context()
    trained = fit(tiny(), ctx)
    folder = ctx.directory / "training"
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    # One at the start, one an epoch, one at the end; all but the last two are gone.
    before, newest = sorted(int(place.name.partition("-")[2]) for place in folder.glob("checkpoint-*"))
    assert newest == before + 1
    parts = ("model.safetensors", "tensors.safetensors", "state.json", "digests.json")
    numbered = {f"checkpoint-{number}/{part}" for number in (before, newest) for part in parts}
    assert files == {"best.safetensors", *numbered}
    best = load_file(ctx.directory / "training" / "best.safetensors")
    assert all(torch.equal(best[name], value) for name, value in trained.module.state_dict().items())


@pytest.mark.parametrize(("scores", "patience", "epochs"), [
    ([0.5, 0.6, 0.6, 0.6, 0.9], 2, 4),  # 0.6 again is not better
    ([0.5, 0.4, 0.6, 0.5, 0.4], 2, 5),
    ([0.5, 0.4, 0.4, 0.4, 0.4], None, 5),
])  # fmt: skip
def test_patience_counts_epochs_without_a_better_score(
    tiny: Make, context: Make, monkeypatch: Patch, scores: list[float], patience: int | None, epochs: int
) -> None:
    upcoming = iter(scores)
    monkeypatch.setattr("stages.trainer.loop.scores_on_validation", lambda *_, **__: torch.full((3,), next(upcoming)))
    fit(tiny(), context(), epochs=5, patience=patience)
    assert [entry["validation_score"] for entry in context.reports["training"]] == pytest.approx(scores[:epochs])


def one_step(model: TorchModel, ctx: Context, scale: float, **settings: Any) -> Tensor:
    """The change of the weights in one step of SGD without decay, on a loss that is `scale` times the task's."""
    given = {"epochs": 1, "batch_size": len(ctx.train), "optimizer": "sgd", "weight_decay": 0, "warmup": 0}
    trained = train(model, Altered(ctx, lambda loss: scale * loss), TrainingSettings(**given, **settings), ctx)
    return weights(trained) - weights(model)


def test_gradient_clip_bounds_the_step(tiny: Make, context: Make) -> None:
    # Nesterov's first step is lr * (1 + momentum) * gradient.
    clipped = one_step(tiny(), context(), 1e4, learning_rate=0.01, gradient_clip=0.5)
    assert float(clipped.norm()) == pytest.approx(0.01 * 1.9 * 0.5, rel=1e-3)
    free = one_step(tiny(), context(), 1e4, learning_rate=0.01, gradient_clip=None)
    assert float(free.norm()) > 1e3 * float(clipped.norm())
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), rtol=1e-3, atol=1e-4)


def test_a_gradient_below_the_clip_is_left_alone(tiny: Make, context: Make) -> None:
    steps = [one_step(tiny(), context(), 1e-3, learning_rate=0.01, gradient_clip=clip) for clip in (1.0, None)]
    assert torch.equal(*steps)


STEPS = 50


def rates(**settings: Any) -> list[float]:
    given = TrainingSettings(learning_rate=0.1, **settings)
    optimizer = make_optimizer(nn.Linear(1, 1), given)
    schedule = make_schedule(optimizer, given, STEPS)
    found = []
    for _ in range(STEPS + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.05])
@pytest.mark.parametrize(("schedule", "after"), [
    ("cosine", lambda t: 0.05 * (1 + math.cos(math.pi * t))),  # SGDR, equation 5, with eta_min = 0
    ("linear", lambda t: 0.1 * (1 - t)),
    ("constant", lambda t: 0.1),
])  # fmt: skip
def test_the_rate_rises_in_a_line_then_by_formula(schedule: str, after: Make, warmup: float) -> None:
    rise = math.ceil(warmup * STEPS)
    expected = [0.1 * (k + 1) / (rise + 1) for k in range(rise)]
    expected += [after((k - rise) / (STEPS - rise)) for k in range(rise, STEPS + 1)]
    assert rates(schedule=schedule, warmup=warmup) == pytest.approx(expected, abs=1e-9)


def test_the_history_tells_epoch_loss_score_and_rate(tiny: Make, context: Make) -> None:
    fit(tiny(), context(), epochs=3)
    history = context.reports["training"]
    assert [entry["epoch"] for entry in history] == [0, 1, 2]
    assert all(set(entry) == {"epoch", "loss", "validation_score", "learning_rate"} for entry in history)
    assert history[-1]["learning_rate"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("step", [9, 30])
def test_a_loss_that_becomes_nan_stops_with_the_epoch_and_finite_weights(tiny: Make, context: Make, step: int) -> None:
    ctx, calls = context(), iter(range(1000))
    objective = Altered(ctx, lambda loss: loss * (math.nan if next(calls) == step else 1.0))
    settings = TrainingSettings(**{**QUICK, "epochs": 8})  # 8 steps an epoch
    message = rf"the loss became nan in epoch {step // 8}; expected a finite loss"
    with pytest.raises(StageError, match=message) as caught:
        train(tiny(), objective, settings, ctx)
    kept = Path(str(caught.value).rpartition(" in ")[2].rstrip("."))
    assert kept == ctx.directory / "training"
    files = list(kept.rglob("*.safetensors"))
    assert {"best.safetensors", "model.safetensors"} <= {file.name for file in files}
    assert all(torch.isfinite(value).all() for file in files for value in load_file(file).values())


@pytest.mark.parametrize(("loss", "found"), [(lambda x: x.repeat(32), r"shape \(32,\)"), (lambda _: 0.5, "float")])
def test_a_loss_must_be_a_scalar(tiny: Make, context: Make, loss: Callable[[Tensor], Any], found: str) -> None:
    ctx = context()
    with pytest.raises(StageError, match=rf"the loss is a .*{found}.*expected a scalar.*mean"):
        train(tiny(), Altered(ctx, loss), TrainingSettings(**QUICK), ctx)


def test_labels_out_of_range_are_one_error_that_names_the_task(tiny: Make, context: Make, task: Task) -> None:
    def loss(outputs: Outputs, targets: Tensor) -> Tensor:
        return task.loss(outputs, targets + 4)

    with pytest.raises(StageError, match=r"^the task's loss: IndexError: Target \d is out of bounds.*range and shape"):
        fit(tiny(), context(loss=loss))


def test_a_split_smaller_than_a_batch_is_one_batch(tiny: Make, context: Make, task: Task) -> None:
    trained = fit(tiny(), context(train=task.train.select([0, 1, 2])), batch_size=64)
    assert not torch.equal(weights(trained), weights(tiny()))


def test_augmentation_sees_training_examples_only(tiny: Make, context: Make) -> None:
    seen: list[tuple[int, int]] = []

    def augment(inputs: dict[str, Tensor], seed: int, epoch: int) -> dict[str, Tensor]:
        seen.append((seed, epoch))
        return inputs

    ctx = context(augment=augment)
    fit(tiny(), ctx)
    assert len(seen) == len(set(seen)) == 2 * len(ctx.train)  # each example once an epoch, validation never


def test_channels_last_learns_the_same_and_gives_weights_as_they_were_laid_out(tiny: Make, context: Make) -> None:
    plain, last = (fit(tiny(), context(), precision="fp32", channels_last=wanted) for wanted in (False, True))
    torch.testing.assert_close(weights(last), weights(plain), rtol=1e-3, atol=1e-4)
    assert all(p.is_contiguous() for p in last.module.parameters())


def test_channels_last_reaches_what_convolutions_see(tiny: Make, context: Make) -> None:
    seen: list[bool] = []
    model = tiny()

    class Watching(Supervised):
        def watch(self, student: nn.Module) -> None:
            def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                seen.append(output.is_contiguous(memory_format=torch.channels_last))

            for module in student.modules():
                if isinstance(module, nn.Conv2d) and module.in_channels > 1:
                    module.register_forward_hook(look)

    ctx = context()
    train(model, Watching(ctx), TrainingSettings(**QUICK, channels_last=True), ctx)
    assert seen
    assert all(seen)
