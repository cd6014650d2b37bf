"""A training that was stopped or killed, anywhere, ends with the weights, to the bit, of one that was not."""

import json
import random
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.base import files
from pipeline.base.batches import Inputs, Outputs
from pipeline.base.devices import set_seed
from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.errors import Interruption, StageError
from pipeline.model import TorchModel
from pipeline.stage import Stage
from pipeline.task import Batch, Task
from stages.distill.logits import LogitDistillation
from stages.prune.channels import ChannelPruning
from stages.train.supervised import SupervisedTraining
from stages.trainer import checkpoint
from stages.trainer.loop import TrainingSettings, make_optimizer, make_schedule, train
from stages.trainer.objective import Objective, Progress, Supervised
from tests.aliases import Make, Patch
from tests.contexts import bare_context, saved_tiny, tiny_task
from tests.forked import die, exit_code
from tests.trained import noisy

STEPS = 4  # an epoch: 256 examples in batches of 64
QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 64, "learning_rate": 0.01}

NETS = """
from torch import nn

class Noisy(nn.Sequential):
    '''With dropout, which draws random numbers, and batch normalization, which has state beside its weights.'''

    def __init__(self, width=6):
        super().__init__(
            nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.3),
            nn.Conv2d(width, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * width, 4),
        )
"""


class Ended(NamedTuple):
    weights: dict[str, Tensor]
    reports: dict[str, Any]

    def same(self, other: "Ended") -> bool:
        """Equal to the bit, with batch statistics and history."""
        names = self.weights.keys() | other.weights.keys()
        return self.reports == other.reports and all(torch.equal(self.weights[n], other.weights[n]) for n in names)


@pytest.fixture
def go(context: Callable[..., Context], task: Task, tmp_path: Path) -> Callable[..., Ended]:
    """go(stage, folder, **changes): what the stage makes of a network, in that folder."""
    (tmp_path / "nets.py").write_text(NETS)

    def make(stage: Stage | None = None, folder: str = "work", **changes: Any) -> Ended:
        reports: dict[str, Any] = {}
        (tmp_path / folder).mkdir(exist_ok=True)
        given = {"baseline": None, "report": reports.__setitem__, **changes, "directory": tmp_path / folder}
        made = trained(stage or SupervisedTraining(**QUICK), context(**given), task, tmp_path)
        return Ended(made.module.state_dict(), reports)

    return make


def trained(stage: Stage, ctx: Context, task: Task, home: Path) -> TorchModel:
    """What the stage makes of a network whose file lies in `home`."""
    set_seed(0)
    example = {"input": torch.stack([task.train[i][0]["input"] for i in range(2)])}
    made: TorchModel = stage.run(TorchModel.build(Reference(use="nets.py:Noisy", folder=home), example), ctx)
    return made


def after(steps: int) -> Callable[[], bool]:
    """Asks to stop when so many steps are done; it is asked once a step."""
    asked = count(1)
    return lambda: next(asked) >= steps


def stopped(go: Callable[..., Ended], steps: int, stage: Stage | None = None, **changes: Any) -> Ended:
    """Stop after some steps, then go on to the end."""
    with pytest.raises(Interruption, match=r"after step|teacher's logits"):
        go(stage, interrupted=after(steps), **changes)
    return go(stage, **changes)


def brighter(draw: Callable[[], Any]) -> Callable[..., Inputs]:
    """An augmentation that adds the same drawn number everywhere."""
    return lambda inputs, seed, epoch: {"input": inputs["input"] + 0.1 * draw()}


numpys = brighter(lambda: float(np.random.rand()))  # as users do


@pytest.fixture
def whole(go: Callable[..., Ended], kept: dict[str, Ended]) -> Callable[..., Ended]:
    """whole(stage): what a stage makes that nothing disturbs, once for all tests."""

    def make(stage: Stage | None = None) -> Ended:
        if repr(stage) not in kept:
            kept[repr(stage)] = go(stage, "whole")
        return kept[repr(stage)]

    return make


@pytest.mark.parametrize("steps", [0, *range(1, 3 * STEPS + 1)])
def test_stopped_after_any_step_it_ends_as_if_it_had_not_been(go: Make, whole: Make, steps: int) -> None:
    assert stopped(go, steps).same(whole())


def test_another_seed_ends_elsewhere(go: Make) -> None:
    assert not go().same(go(folder="other", seed=1))


@pytest.mark.parametrize("steps", [2, STEPS, 3 * STEPS - 1])
@pytest.mark.parametrize("settings", [
    {"optimizer": "sgd", "schedule": "cosine"},
    {"optimizer": "sgd", "schedule": "linear", "warmup": 0.5},
    {"optimizer": "sgd", "schedule": "constant", "warmup": 0},
    {"optimizer": "adamw", "schedule": "linear"},
    {"optimizer": "adamw", "schedule": "constant", "gradient_clip": None},
    {"checkpoint_epochs": 2},
    {"channels_last": True},
    {"channels_last": True, "optimizer": "sgd"},
    {"batch_size": 60},  # a rest that no batch holds
], ids=str)  # fmt: skip
def test_optimizers_and_schedules_go_on(go: Make, whole: Make, settings: dict[str, Any], steps: int) -> None:
    stage = SupervisedTraining(**{**QUICK, **settings})
    assert stopped(go, steps, stage).same(whole(stage))


@pytest.mark.parametrize("steps", [1, STEPS + 1])
@pytest.mark.parametrize("augment", [noisy, numpys, brighter(random.random), brighter(lambda: torch.rand(1))])
def test_augmentation_goes_on_wherever_its_random_numbers_come_from(go: Make, augment: Any, steps: int) -> None:
    whole = go(folder="whole", augment=augment)
    assert stopped(go, steps, augment=augment).same(whole)
    assert not whole.same(go(folder="plain"))


def test_workers_that_draw_random_numbers_go_on(go: Make) -> None:
    alone, stage = (SupervisedTraining(**{**QUICK, "epochs": 1, "workers": number}) for number in (0, 1))
    assert stopped(go, 2, stage, augment=numpys).same(go(alone, "whole", augment=numpys))


def test_a_collate_that_draws_random_numbers_goes_on(go: Make, task: Task) -> None:
    def mixed(rows: list[Any]) -> tuple[Any, Any]:
        images, labels = torch.utils.data.default_collate(rows)
        return {"input": images["input"] * float(np.random.rand())}, labels

    split = replace(task.train, collate=mixed)
    assert stopped(go, 2, train=split).same(go(folder="whole", train=split))


def test_an_objective_that_draws_random_numbers_goes_on(go: Make, task: Task) -> None:
    def loss(outputs: Outputs, targets: Tensor) -> Tensor:
        return task.loss(outputs, targets) * (0.5 + random.random()) * float(np.random.normal())

    assert stopped(go, STEPS + 2, loss=loss).same(go(folder="whole", loss=loss))


@pytest.mark.parametrize("steps", [2 * STEPS, 4 * STEPS - 1, 4 * STEPS])
def test_patience_remembers_how_long_it_has_waited(go: Make, monkeypatch: Patch, steps: int) -> None:
    # Validated after each epoch: better, worse, worse, worse. Patience 3 ends it after the fourth of nine epochs.
    def validated(model: TorchModel, *_: Any, **__: Any) -> Tensor:
        return torch.full((4,), 1.0 if int(model.module.state_dict()["1.num_batches_tracked"]) == STEPS else 0.5)

    monkeypatch.setattr("stages.trainer.loop.scores_on_validation", validated)
    stage = SupervisedTraining(**{**QUICK, "epochs": 9, "patience": 3})
    whole = go(stage, "whole")
    assert len(whole.reports["training"]) == 4
    assert int(whole.weights["1.num_batches_tracked"]) == STEPS  # the best epoch's, which is the first
    assert stopped(go, steps, stage).same(whole)


def distillation(folder: Path) -> LogitDistillation:
    return LogitDistillation(student=Reference(use="nets.py:Noisy", arguments={"width": 3}, folder=folder), **QUICK)


@pytest.mark.parametrize("augment", [None, noisy], ids=["kept logits", "augmented"])
@pytest.mark.parametrize("steps", [1, STEPS, STEPS + 3])
def test_distillation_goes_on(go: Make, tmp_path: Path, augment: Any, steps: int) -> None:
    stage = distillation(tmp_path)
    assert stopped(go, steps, stage, augment=augment).same(go(stage, "whole", augment=augment))


def test_a_stop_is_heard_while_a_teachers_logits_are_computed(go: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr("stages.kd.cache.BATCH_SIZE", 32)
    stage = distillation(tmp_path)
    with pytest.raises(Interruption, match="teacher's logits"):
        go(stage, interrupted=after(2))
    assert go(stage).same(go(stage, "whole"))


@pytest.mark.parametrize(("steps", "importance"), [
    (STEPS + 1, "magnitude"), (2 * STEPS, "magnitude"), (3 * STEPS + 1, "magnitude"), (2 * STEPS + 1, "taylor"),
])  # fmt: skip
def test_pruning_in_steps_goes_on_in_the_recovery_that_was_stopped(
    go: Make, tmp_path: Path, monkeypatch: Patch, steps: int, importance: Any
) -> None:
    monkeypatch.setattr("stages.kd.cache.BATCH_SIZE", 512)  # so that keeping logits asks once whether to stop
    recovery: Any = {**QUICK, "epochs": 4}
    stage = ChannelPruning(macs=0.5, steps=2, round_to=1, importance=importance, recovery=recovery)
    with pytest.raises(Interruption):
        go(stage, interrupted=after(steps))
    assert (tmp_path / "work" / "recovery_2").exists() is (steps - 1 > 2 * STEPS)
    assert go(stage).same(go(stage, "whole"))


def train_until(steps: int, every: int, home: Path) -> None:
    """A training that kills itself in its n-th step."""
    task, calls = tiny_task(), count(1)

    def deadly(outputs: Outputs, targets: Tensor) -> Tensor:
        if next(calls) == steps:
            die()
        return task.loss(outputs, targets)

    (home / "work").mkdir()
    stage = SupervisedTraining(**{**QUICK, "checkpoint_epochs": every})
    trained(stage, bare_context(home / "work", loss=deadly), task, home)


@pytest.mark.parametrize(("every", "steps"), [(1, 2), (1, STEPS + 1), (2, STEPS + 1), (2, 3 * STEPS), (5, 3 * STEPS)])
def test_another_process_goes_on_from_the_last_checkpoint(go: Make, tmp_path: Path, every: int, steps: int) -> None:
    stage = SupervisedTraining(**{**QUICK, "checkpoint_epochs": every})
    assert exit_code(train_until, steps, every, tmp_path) == -signal.SIGKILL
    epochs_done = (steps - 1) // STEPS
    assert progress(tmp_path / "work" / "training")["epoch"] == epochs_done - epochs_done % every
    assert go(stage).same(go(stage, "whole"))


def newest_in(folder: Path) -> Path:
    return max(folder.glob("checkpoint-*"), key=lambda place: int(place.name.partition("-")[2]))


def progress(folder: Path) -> dict[str, Any]:
    place = newest_in(folder)
    return json.loads((place / "state.json").read_text())["progress"]  # type: ignore[no-any-return]


def killed_at(point: int, folder: Path, work: Callable[..., Any], *args: Any) -> bool:
    """Do work(*args) in a child that kills itself before it touches a file in `folder` for the n-th time."""
    code = exit_code(work_until, point, folder, work, args)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def work_until(point: int, folder: Path, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """It touches a file where it opens, makes, renames or removes one."""
    seen = count()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        touches = event == "open" or event.startswith("os.")
        if touches and str(folder) in str(arguments[0]) and next(seen) == point:
            die()

    sys.addaudithook(hook)
    work(*args)


def train_on_few(saved: Path, folder: Path) -> Ended:
    """A small training of a saved `tiny` model, with its checkpoints in `folder`."""
    few, reports = tiny_task().train.select(list(range(32))), dict[str, Any]()
    settings = TrainingSettings(epochs=2, batch_size=16, learning_rate=0.01)
    ctx = bare_context(folder, train=few, validation=few, report=reports.__setitem__)
    set_seed(0)
    return Ended(train(saved_tiny(saved), Supervised(ctx), settings, ctx).module.state_dict(), reports)


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_before_any_file_operation_a_training_ends_the_same(tiny: Make, tmp_path: Path, stride: int) -> None:
    model, folder, points = tmp_path / "model", tmp_path / "kill", 0
    tiny(width=2).save(model)
    whole = train_on_few(model, tmp_path / "whole")
    while killed_at(points, folder, train_on_few, model, folder):
        assert train_on_few(model, folder).same(whole), f"killed before file operation {points}"
        shutil.rmtree(folder)
        points += stride
    assert points > 40


def parts_of(**changes: Any) -> tuple[nn.Module, Any, Any]:
    """A small module with its optimizer and schedule."""
    module, settings = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), TrainingSettings(**changes)
    optimizer = make_optimizer(module, settings)
    return module, optimizer, make_schedule(optimizer, settings, 100)


def saved(number: int, folder: Path, **changes: Any) -> tuple[nn.Module, Any, Any]:
    """A small training after `number` steps, with its checkpoint."""
    torch.manual_seed(number)
    module, optimizer, schedule = parts_of(**changes)
    for _ in range(number):
        optimizer.zero_grad()
        module(torch.rand(5, 3)).square().sum().backward()
        optimizer.step()
        schedule.step()
    checkpoint.save(folder, "me", module, optimizer, schedule, {"step": number})
    return module, optimizer, schedule


def restored(folder: Path, origin: str = "me", **changes: Any) -> tuple[dict[str, Any] | None, nn.Module, Any, Any]:
    parts, number = parts_of(**changes), checkpoint.newest(folder, origin, pytest.fail)
    return None if number is None else checkpoint.restore(folder, number, *parts), *parts


def equal(a: Any, b: Any) -> bool:
    """Deep equality that knows tensors; a tuple is as good as a list."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, Tensor) else bool(a == b)


@pytest.mark.parametrize("steps", [0, 1, 7, 60])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_module_optimizer_and_schedule_come_back(tmp_path: Path, optimizer: str, schedule: str, steps: int) -> None:
    before = saved(steps, tmp_path, optimizer=optimizer, schedule=schedule)
    found, *back = restored(tmp_path, optimizer=optimizer, schedule=schedule)
    assert found == {"step": steps}
    assert all(equal(x.state_dict(), y.state_dict()) for x, y in zip(before, back, strict=True))


def draws() -> list[float]:
    return [
        *torch.rand(3).tolist(), torch.randn(1).item(), *np.random.rand(3), np.random.normal(),
        random.random(), random.gauss(0, 1),
    ]  # fmt: skip


def test_all_generators_go_on_where_they_were(tmp_path: Path) -> None:
    set_seed(3)
    draws()  # one of two gaussians: the other one is in the generator's state
    saved(1, tmp_path)
    expected = draws()
    set_seed(4)
    restored(tmp_path)
    assert draws() == expected


def test_only_the_newest_checkpoint_and_the_one_before_are_left(tmp_path: Path) -> None:
    assert restored(tmp_path)[0] is None
    for number in range(4):
        saved(number, tmp_path)
        assert len(list(tmp_path.iterdir())) == min(number + 1, 2)
    assert restored(tmp_path)[0] == {"step": 3}


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    saved(3, tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    assert not any(path.read_bytes().startswith((b"\x80", b"PK")) for path in files)


def test_killed_anywhere_in_saving_one_checkpoint_is_whole(tmp_path: Path) -> None:
    two_states = [saved(number, tmp_path / str(number))[0] for number in (1, 2)]
    found, points = [], 0
    while True:
        folder = tmp_path / "kill" / str(points)
        saved(1, folder)
        if not killed_at(points, folder, saved, 2, folder):
            break
        state, module, *_ = restored(folder)
        found.append(state["step"])
        assert equal(module.state_dict(), two_states[state["step"] - 1].state_dict())
        saved(3, folder)  # and the next one clears up
        assert [path.name.partition("-")[0] for path in folder.iterdir()] == ["checkpoint"] * 2
        points += 1
    assert found == sorted(found)
    assert set(found) == {1, 2}


@pytest.mark.parametrize(("owner", "broken"), [(checkpoint, "save_model"), (checkpoint, "save_file"), (files, "sync")])
def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path: Path, monkeypatch: Patch, owner: Any, broken: str) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    saved(1, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(owner, broken, full)
        with pytest.raises(OSError, match="No space"):
            saved(2, tmp_path)
    assert restored(tmp_path)[0] == {"step": 1}
    saved(2, tmp_path)
    assert restored(tmp_path)[0] == {"step": 2}


@pytest.mark.parametrize("change", [{"learning_rate": 0.02}, {"epochs": 2}, "seed", "weights"], ids=str)
def test_a_checkpoint_of_another_training_is_not_used(tiny: Make, context: Make, tmp_path: Path, change: Any) -> None:
    def go(folder: Path, change: Any = None, **rest: Any) -> Ended:
        reports: dict[str, Any] = {}
        model = tiny(seed=1 if change == "weights" else 0)
        ctx = context(directory=folder, report=reports.__setitem__, **{"seed": 5} if change == "seed" else {}, **rest)
        set_seed(0)
        settings = TrainingSettings(**{**QUICK, **(change if isinstance(change, dict) else {})})
        return Ended(train(model, Supervised(ctx), settings, ctx).module.state_dict(), reports)

    with suppress(Interruption):
        go(tmp_path / "one", interrupted=after(6))
    assert go(tmp_path / "one", change).same(go(tmp_path / "two", change))


def flip(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def cut(file: Path, draw: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size)])


def lose(file: Path, draw: random.Random) -> None:
    file.unlink()


def lose_folder(file: Path, draw: random.Random) -> None:
    shutil.rmtree(file.parent)


def damage(folder: Path, draw: random.Random) -> None:
    """Damage files of a training: of the newest checkpoint, of any, of all, or the best weights."""
    checkpoints = list(newest_in(folder).iterdir())
    every = [*folder.rglob("*.*")]
    for file in draw.choice([[draw.choice(checkpoints)], [draw.choice(every)], every, [*folder.glob("best.*")]]):
        if file.exists():
            draw.choice([flip, cut, lose])(file, draw)


def ended_with_damage(go: Make, tmp_path: Path, seed: int) -> tuple[Ended, list[str]]:
    """A training that is killed in a drawn step, whose files are then damaged, and that goes on; and its warnings."""
    draw, warnings = random.Random(seed), list[str]()
    every = draw.choice([1, 2])
    assert exit_code(train_until, draw.randrange(2, 3 * STEPS + 1), every, tmp_path) == -signal.SIGKILL
    damage(tmp_path / "work" / "training", draw)
    return go(SupervisedTraining(**{**QUICK, "checkpoint_epochs": every}), warn=warnings.append), warnings


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 40))])
def test_with_damaged_checkpoints_it_ends_the_same_and_says_so(go: Make, tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "work" / "training"
    ended, warnings = ended_with_damage(go, tmp_path, seed)
    assert ended.same(go(folder="whole"))
    assert all("is left out" in text for text in warnings)
    assert go(SupervisedTraining(**QUICK)).same(ended), folder  # and no later run ends by it


@pytest.mark.parametrize("harm", [flip, cut, lose, lose_folder])
def test_a_damaged_newest_checkpoint_is_left_out_for_the_one_before(tmp_path: Path, harm: Any) -> None:
    saved(1, tmp_path)
    saved(2, tmp_path)
    harm(newest_in(tmp_path) / "tensors.safetensors", random.Random(0))
    (tmp_path / "checkpoint-x").touch()
    told: list[str] = []
    assert checkpoint.newest(tmp_path, "me", told.append) == 1
    assert len(told) == (harm is not lose_folder)  # of what is gone without a trace nothing can be told
    assert restored(tmp_path)[0] == {"step": 1}


def test_damaged_best_weights_are_never_given(go: Make, tmp_path: Path) -> None:
    told: list[str] = []
    whole = go(folder="whole")
    with pytest.raises(Interruption):
        go(interrupted=after(2 * STEPS + 1))
    flip(tmp_path / "work" / "training" / "best.safetensors", random.Random(1))
    assert go(warn=told.append).same(whole)
    assert "since best.safetensors" in told[0]
    assert "since best.safetensors" in told[-1]


def test_two_trainings_of_one_name_in_a_stage_are_two(tiny: Make, context: Make) -> None:
    ctx, settings = context(), TrainingSettings(**QUICK)
    once = train(tiny(), Supervised(ctx), settings, ctx)
    twice = train(once, Supervised(ctx), settings, ctx)
    assert not torch.equal(once.module.head.weight, twice.module.head.weight)  # type: ignore[union-attr, arg-type]


def test_a_stop_where_the_loss_is_nan_keeps_the_finite_weights(tiny: Make, context: Make, tmp_path: Path) -> None:
    ctx = context(interrupted=after(3))
    labels, calls = Supervised(ctx), count(1)

    class Failing(Objective):
        def forward(self, batch: Batch, outputs: Outputs, moment: Progress) -> Tensor:
            return labels(batch, outputs, moment) * (float("nan") if next(calls) == 2 else 1.0)

    with pytest.raises(StageError, match="became nan"):
        train(tiny(), Failing(), TrainingSettings(**QUICK), ctx)
    assert progress(ctx.directory / "training")["step"] == 0
