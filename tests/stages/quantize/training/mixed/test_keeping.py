"""`keep` of a training: the network holds the limit, is that of its settings, and no training is lost."""

from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import ValidationError

from pipeline.base.devices import set_seed
from pipeline.base.world import World
from pipeline.errors import Interruption, NotFinite, StageError
from pipeline.forms.weights import state_digest
from pipeline.measure.accuracy import scores_on_validation
from pipeline.measure.statistics.means import drop
from pipeline.model import TorchModel
from pipeline.task import Task
from stages.quantize.aware import AwareQuantization
from stages.quantize.mixed.front import Choice
from stages.quantize.mixed.measuring import Row
from stages.quantize.mixed.scores import scores_of
from stages.quantize.training.mixed import keeping
from stages.quantize.training.mixed.effects import Layers
from stages.quantize.training.mixed.keep import TrainedKeep
from stages.quantize.training.mixed.keeping import TrainedKeeping, to_train
from stages.trainer.loop import _Loop
from tests.contexts import context_of

TRAINING = {"epochs": 2, "batch_size": 128, "learning_rate": 0.003, "calibration": "minmax"}


class Ran(NamedTuple):
    model: TorchModel
    reports: dict[str, Any]


def ran(settings: dict[str, Any], model: TorchModel, task: Task, folder: Path, **changes: Any) -> Ran:
    reports: dict[str, Any] = {}
    folder.mkdir(exist_ok=True)
    set_seed(0)
    stage = AwareQuantization.model_validate({**TRAINING, **settings})
    return Ran(stage.run(model, context_of(task, folder, report=reports.__setitem__, **changes)), reports)


@pytest.fixture(scope="module")
def kept(learned: TorchModel, task: Task, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return ran({"keep": {"drop": 0.03}}, learned, task, tmp_path_factory.mktemp("kept"))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """An entry for each step of a training."""
    seen, step = list[None](), _Loop._step
    monkeypatch.setattr(_Loop, "_step", lambda self, parts: seen.append(None) or step(self, parts))
    return seen


def test_the_network_keeps_the_limit_and_what_was_smaller_does_not(kept: Ran, learned: TorchModel, task: Task) -> None:
    ours, before = (scores_on_validation(one, task, 64, lambda steps: None).numpy() for one in (kept.model, learned))
    report = kept.reports["keep"]
    assert drop(ours, before).model_dump() == {end: report[end] for end in ("value", "low", "high")}
    assert report["high"] <= 0.03
    smaller = [one for one in report["tried"] if one["weights_bytes"] < report["weights_bytes"]]
    assert smaller
    assert all(one["high"] > 0.03 for one in smaller)
    assert len(report["tried"]) <= 4
    assert {*report["widths"].values()} & {4, 2}
    trained = {name: row["bits"] for name, row in kept.reports["aware"]["weights"].items()}
    assert trained == {f"{name}.weight": width for name, width in report["widths"].items()}
    assert len(kept.reports["training"]) == 2


def test_the_same_weights_come_of_the_settings_that_it_reports(
    kept: Ran, learned: TorchModel, task: Task, tmp_path: Path
) -> None:
    again = ran(kept.reports["keep"]["settings"], learned, task, tmp_path / "again")
    assert state_digest(again.model.module) == state_digest(kept.model.module)


def test_a_stop_loses_no_training_that_is_done(
    kept: Ran, learned: TorchModel, task: Task, tmp_path: Path, steps: list[None]
) -> None:
    folder, later = tmp_path / "stage", count()

    def interrupted() -> bool:  # in the middle of the second training
        return (folder / "mixture-1").exists() and next(later) > 3

    settings = {"keep": {"drop": 0.03}}
    with pytest.raises(Interruption, match="stopped in epoch"):
        ran(settings, learned, task, folder, interrupted=interrupted)
    assert 0 < len(steps) < 16
    resumed = ran(settings, learned, task, folder)
    assert len(steps) == 8 * len(kept.reports["keep"]["tried"])
    assert state_digest(resumed.model.module) == state_digest(kept.model.module)
    assert resumed.reports["keep"] == kept.reports["keep"]
    with pytest.raises(Interruption, match="stopped between two trainings"):
        ran(settings, learned, task, folder, interrupted=lambda: True)


def test_what_none_keeps_is_an_error_with_the_nearest(learned: TorchModel, task: Task, tmp_path: Path) -> None:
    settings = {"learning_rate": 1e-9, "keep": {"drop": 0.007, "widths": ["ternary", 2], "trainings": 2}}
    message = (
        r"no mixture of ternary, 2 keeps drop 0.007 on 600 .* once trained; of 2 trainings the nearest has drop 0\.\d"
    )
    with pytest.raises(StageError, match=message):
        ran(settings, learned, task, tmp_path / "stage")


def test_what_has_no_score_does_not_hold_and_every_process_hears_of_it(
    learned: TorchModel, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of the first guess, and trained ones with 2 bits, are not finite; with 4 bits one score is below zero."""
    layers, reports, sent, asked = dict[str, Any](), dict[str, Any](), list[Any](), count()

    def begun(widths: Layers, inner: Any = None) -> TorchModel:
        layers.clear()
        layers.update(widths, trained=inner is not None)
        return learned

    def scores(model: Any, ctx: Any) -> Any:
        own, is_trained = scores_of(model, ctx).copy(), layers["trained"]
        if next(asked) == 0 or (is_trained and 2 in layers.values()):
            raise NotFinite("the answers are not finite")
        own[0] = -0.01 if is_trained and 4 in layers.values() else own[0]
        return own

    monkeypatch.setattr(keeping, "scores_of", scores)
    monkeypatch.setattr(World, "broadcast", lambda world, value=None: sent.append(value) or value)
    keep = TrainedKeep(retention=0.9, trainings=3)
    rows = [Row(name, [name], "linear", 100, {"8": 1e-4, "4": 1e-3, "2": 1e-2}, 10) for name in "ab"]
    ctx = context_of(task, tmp_path, report=reports.__setitem__)
    TrainedKeeping(keep, rows, learned, ctx, begun, begun).smallest()
    report = reports["keep"]
    assert report["widths"] == {"a": 8, "b": 8}
    assert len(report["tried"]) == 1
    assert report["unscored"]
    assert len(report["unscored"]) + len(report["tried"]) <= 3
    assert len(sent) == next(asked)
    assert sent[0] is None
    assert sent.count(None) == 1 + len(report["unscored"])


def mixtures(sizes: list[int]) -> list[tuple[Choice, ...]]:
    return [(Choice(8, size, 1 / size),) for size in sizes]


def test_few_mixtures_are_all_trained_and_of_many_those_that_are_spread_over_the_bytes() -> None:
    row = mixtures([*range(10, 100)])
    assert to_train(row[:7], None, 7) == row[:7]
    spread = to_train(row, None, 7)
    assert [mixture[0].size for mixture in spread] == pytest.approx([10, 25, 40, 55, 69, 84, 99], abs=1)
    guessed = to_train(row, 30, 7)
    assert [mixture[0].size for mixture in guessed] == [10, 16, 22, 28, 34, 40, 99]
    assert to_train(row, 89, 3) == [row[0], row[44], row[89]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": {"drop": 0.1, "widths": [8, "fp32"]}}, "fp32: quantize.aware trains every layer in integers"),
        ({"keep": {"drop": 0.1, "widths": [8]}}, "one is no choice"),
        ({"keep": {"drop": 0.1, "trainings": 1}}, "greater than or equal to 2"),
        ({"keep": {"drop": 0.1, "widths": [8, 2]}, "gradual": True}, "2 epochs cannot be divided among the 4 steps"),
    ],
)
def test_what_cannot_be_chosen_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AwareQuantization.model_validate({**TRAINING, **settings})
