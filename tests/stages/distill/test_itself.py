"""Generations of self-distillation, sizes that grow, controls and seeds: who learns from whom, and what comes out."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_model

from pipeline.errors import ConfigError
from pipeline.model import TorchModel
from stages.distill.itself import SelfDistillation
from stages.distill.logits import LogitDistillation
from stages.kd import stage
from stages.train.supervised import SupervisedTraining
from tests.aliases import Make, Patch
from tests.trained import score, teach, tiny_student, weights

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 32, "learning_rate": 0.01}


@pytest.fixture
def teacher(tiny: Make, context: Make) -> TorchModel:
    return teach(tiny(16), context())


def test_each_generation_learns_from_the_one_before(teacher: TorchModel, context: Make, monkeypatch: Patch) -> None:
    trainings: list[tuple[TorchModel, TorchModel]] = []
    plain = stage.train

    def spied(model: TorchModel, objective: Any, *rest: Any) -> TorchModel:
        made = plain(model, objective, *rest)
        trainings.append((objective.teachers[0].model, made))
        return made

    monkeypatch.setattr(stage, "train", spied)
    SelfDistillation(**QUICK, generations=3).run(teacher, context())
    assert [given for given, _ in trainings] == [teacher, trainings[0][1], trainings[1][1]]
    assert len({tuple(weights(made).tolist()) for _, made in trainings}) == 3
    assert all(made.builder == teacher.builder for _, made in trainings)


def test_the_best_generation_by_validation_is_kept_or_the_last(teacher: TorchModel, context: Make) -> None:
    for keep in ("best", "last"):
        ctx = context()
        torch.manual_seed(0)
        made = SelfDistillation(**QUICK, generations=3, keep=keep).run(teacher, ctx)
        rows = context.reports["training_generations"]
        scores = [row["validation_score"] for row in rows]
        assert [row["generation"] for row in rows] == [1, 2, 3]
        assert score(made, ctx) == (max(scores) if keep == "best" else scores[-1])


def test_an_earlier_checkpoint_teaches_its_kind(tiny: Make, teacher: TorchModel, context: Make, tmp_path: Any) -> None:
    save_model(teacher.module, str(tmp_path / "early.safetensors"))
    builder = teacher.builder
    early = {"use": str(builder.folder / "conftest.py") + ":TinyNet", "width": 16, "weights": "early.safetensors"}
    settings = {**QUICK, "epochs": 6, "generations": 1, "hard_weight": 0, "teachers": [early]}
    stage = SelfDistillation.model_validate(settings, context={"folder": tmp_path})
    made = stage.run(tiny(16, seed=3), context())  # what comes in is untrained: it teaches nothing
    assert score(made, context()) > 0.6


def test_sizes_grow_until_a_larger_one_brings_little(teacher: TorchModel, context: Make) -> None:
    grow = {"argument": "width", "sizes": [1, 2, 8, 16], "tolerance": 0.05}
    ctx = context()
    made = LogitDistillation(student=tiny_student(1), grow=grow, **{**QUICK, "epochs": 6}).run(teacher, ctx)
    rows = context.reports["grow"]
    rises = [b - a for a, b in pairwise([row["validation_score"] for row in rows])]
    assert all(rise >= 0.05 for rise in rises[:-1])
    stopped = bool(rises) and rises[-1] < 0.05
    assert stopped or len(rows) == 4
    chosen = rows[-2] if stopped else rows[-1]
    assert made.builder.arguments["width"] == chosen["size"]
    assert score(made, ctx) == chosen["validation_score"]
    trainings = [path.name for path in ctx.directory.iterdir() if path.is_dir() and path.name.startswith("width_")]
    assert len(trainings) == len(rows), "the chosen size is not trained again"


def test_sizes_must_be_known_arguments(teacher: TorchModel, context: Make) -> None:
    stage = LogitDistillation(student=tiny_student(1), grow={"argument": "depth", "sizes": [1, 2]}, **QUICK)
    with pytest.raises(ConfigError, match="depth"):
        stage.run(teacher, context())
    with pytest.raises(ValidationError, match="rising"):
        LogitDistillation(student=tiny_student(1), grow={"argument": "width", "sizes": [2, 1]}, **QUICK)


def test_a_control_is_the_same_student_on_labels_alone(teacher: TorchModel, context: Make) -> None:
    compared: dict[str, TorchModel] = {}
    ctx = context(seed=5, compare=compared.__setitem__)
    torch.manual_seed(5)
    LogitDistillation(student=tiny_student(4), control=True, **QUICK).run(teacher, ctx)
    torch.manual_seed(5)
    alone = SupervisedTraining(**QUICK).run(tiny_student(4).build(teacher, teacher.example), context(seed=5))
    assert list(compared) == ["control"]
    assert torch.equal(weights(compared["control"]), weights(alone))
    histories = [context.reports[name] for name in ("training", "control")]
    assert len(histories[0]) == len(histories[1])


def test_seeds_train_students_that_differ_and_give_the_first(teacher: TorchModel, context: Make) -> None:
    compared: dict[str, TorchModel] = {}
    stage = LogitDistillation(student=tiny_student(4), control=True, seeds=3, **QUICK)
    made = stage.run(teacher, context(compare=compared.__setitem__))
    assert set(compared) == {"control", "student_1", "control_1", "student_2", "control_2"}
    assert len({tuple(weights(model).tolist()) for model in (made, *compared.values())}) == 6
    torch.manual_seed(0)
    once = LogitDistillation(student=tiny_student(4), **QUICK).run(teacher, context())
    assert torch.equal(weights(made), weights(once))


GROW = {"argument": "width", "sizes": [1, 2]}


@pytest.mark.parametrize(
    ("settings", "count"), [({}, 1), ({"seeds": 3}, 3), ({"control": True, "seeds": 2}, 4), ({"grow": GROW}, 3)]
)
def test_every_seed_control_and_size_is_a_training_of_its_own(settings: dict[str, Any], count: int) -> None:
    stage = LogitDistillation(student=tiny_student(1), batch_size=16, **settings)
    assert [*stage.trainings()] == [(16, 1)] * count


def test_every_generation_is_a_training_of_its_own() -> None:
    assert [*SelfDistillation(batch_size=16, generations=3, seeds=2).trainings()] == [(16, 1)] * 6
