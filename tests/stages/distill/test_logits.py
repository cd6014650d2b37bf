"""Distillation of logits as a stage: who teaches, what is refused before work, and that the student follows."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from pipeline.base.targets.labelling import Labelling
from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.deploy import deploy
from pipeline.errors import ConfigError, Note, StageError
from pipeline.measure.agreement import agreement
from pipeline.model import TorchModel
from stages.distill.logits import LogitDistillation
from stages.kd.losses.logits import soft_loss
from stages.kd.objective import Distillation
from stages.trainer.loop import train
from stages.trainer.objective import Progress
from tests.aliases import Make
from tests.contexts import preview_of, refused
from tests.trained import SHORT, live_teacher, score, teach

NETS = """
from torch import nn

def make(width=8, classes=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))
"""


@pytest.fixture
def net(tmp_path: Path) -> Make:
    """net(width=8, classes=4): names a small network in a user's file."""
    (tmp_path / "nets.py").write_text(NETS)
    return lambda **arguments: Reference(use="nets.py:make", arguments=arguments, folder=tmp_path)


def stage(student: Reference, **settings: Any) -> LogitDistillation:
    return LogitDistillation(student=student, **{**SHORT, **settings})


def alike(student: TorchModel, teacher: Any, ctx: Context) -> float:
    inputs = {"input": torch.stack([ctx.validation[i][0]["input"] for i in range(len(ctx.validation))])}
    return agreement(*(m.predict(inputs)["output"] for m in (student, teacher)), Labelling())


def test_a_student_follows_its_teacher_without_labels(tiny: Make, context: Make, net: Make) -> None:
    teacher = teach(tiny(16), context())
    ctx = context(loss=lambda outputs, targets: pytest.fail("the labels were read"))
    untrained = TorchModel.build(net(), teacher.example)
    student = stage(net(), hard_weight=0).run(teacher, ctx)
    assert alike(student, teacher, ctx) > alike(untrained, teacher, ctx) + 0.3
    # What the student agrees on it learnt from the teacher, so it is also right about the labels.
    assert score(student, ctx) > 0.6


def test_hard_weight_one_is_plain_training(tiny: Make, context: Make, net: Make) -> None:
    # An untrained teacher would teach nonsense; with all weight on the labels it has no say at all.
    teacher, ctx = tiny(), context()
    torch.manual_seed(0)
    distilled = stage(net(), hard_weight=1).run(teacher, ctx)
    torch.manual_seed(0)
    plain = teach(TorchModel.build(net(), teacher.example), ctx)
    assert torch.equal(distilled.predict(teacher.example)["output"], plain.predict(teacher.example)["output"])


@pytest.mark.parametrize("hard_weight", [0.0, 0.3, 1.0])
def test_hard_weight_is_the_weight_of_the_labels(tiny: Make, context: Make, net: Make, hard_weight: float) -> None:
    teacher, ctx = tiny(), context(loss=lambda outputs, targets: 0 * outputs["output"].sum() + 1.7)
    chosen, student = stage(net(), hard_weight=hard_weight), TorchModel.build(net(), teacher.example)
    live = live_teacher(teacher, ctx)
    objective = Distillation(chosen.terms_of(), [live], student, chosen, ctx)
    objective.watch(student.module)
    batch = next(iter(ctx.train.loader(8)))
    outputs, taught = student.predict(batch.inputs), teacher.predict(batch.inputs)
    expected = hard_weight * 1.7 + (1 - hard_weight) * float(soft_loss(outputs["output"], taught["output"], 4.0))
    assert float(objective(batch, outputs, Progress())) == pytest.approx(expected, rel=1e-5)


def test_the_teacher_is_not_changed(tiny: Make, context: Make, net: Make) -> None:
    teacher = tiny()
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    assert stage(net(), epochs=1).run(teacher, context()).builder == net()
    assert all(torch.equal(before[name], value) for name, value in teacher.module.state_dict().items())
    assert all(p.grad is None for p in teacher.module.parameters())
    assert not teacher.module.training


def test_teacher_baseline_is_the_baseline_and_not_the_model_that_comes_in(tiny: Make, context: Make, net: Make) -> None:
    baseline = teach(tiny(16), context())
    students = []
    for incoming, teacher, known in ((tiny(seed=5), "baseline", baseline), (baseline, "incoming", None)):
        torch.manual_seed(0)
        students.append(stage(net(), teacher=teacher, epochs=2).run(incoming, context(baseline=known)))
    assert torch.equal(*(s.predict(baseline.example)["output"] for s in students))
    with pytest.raises(ConfigError, match=r"there is no baseline yet.*teacher: incoming"):
        stage(net(), teacher="baseline").run(tiny(), context(baseline=None))


def test_the_model_that_comes_in_goes_on_from_its_weights(tiny: Make, context: Make) -> None:
    teacher = teach(tiny(16), context())
    start = teach(tiny(8), context())
    ctx = context(baseline=teacher)
    kept = {name: value.clone() for name, value in start.module.state_dict().items()}
    gentle = stage(Reference(use="incoming"), teacher="baseline", epochs=1, learning_rate=1e-6)
    made = gentle.run(start, ctx)
    assert all(torch.equal(start.module.state_dict()[name], value) for name, value in kept.items())
    for name, value in made.module.state_dict().items():
        assert 0 < (value - kept[name]).abs().max() < 1e-3
    assert alike(gentle.model_copy(update={"learning_rate": 0.01}).run(start, ctx), teacher, ctx) > 0.8


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "would be its own teacher: set `teacher: baseline`"),
    ({"teachers": ["baseline", "incoming"]}, "would be its own teacher"),
    ({"teacher": "baseline", "grow": {"argument": "width", "sizes": [2, 4]}}, "give a student that is to `grow`"),
])  # fmt: skip
def test_a_student_that_comes_in_needs_another_teacher_and_has_one_size(settings: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        stage(Reference(use="incoming"), **settings)


def test_the_student_that_comes_in_is_known_before_any_work(tiny: Make, net: Make) -> None:
    first, second = stage(net(width=16)), stage(Reference(use="incoming"), teacher="baseline")
    assert second._expected_student([first], preview_of(tiny())).builder.arguments == {"width": 16}


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_teachers_of_both_forms_teach_the_same(tiny: Make, context: Make, net: Make, tmp_path: Path, form: str) -> None:
    ctx = context()
    teacher = teach(tiny(), ctx)
    given = teacher if form == "torch" else deploy(teacher, tmp_path / "teacher.onnx")
    torch.manual_seed(0)
    student = TorchModel.build(net(), teacher.example)
    live, settings = live_teacher(given, ctx), stage(net(), hard_weight=0)
    trained = train(student, Distillation(settings.terms_of(), [live], student, settings, ctx), settings, ctx)
    assert alike(trained, teacher, ctx) > 0.6


def test_logits_of_another_shape_are_refused_before_work_and_in_it(tiny: Make, context: Make, net: Make) -> None:
    preview = preview_of(tiny())
    with pytest.raises(ConfigError, match=r"student gives logits \(2, 7\); expected \(2, 4\), as the teacher gives"):
        list(stage(net(classes=7)).check((), preview))
    with pytest.raises(StageError, match=r"logits \(32, 7\), the teacher \(32, 4\).*number of classes"):
        stage(net(classes=7)).run(tiny(), context())


def test_the_teacher_of_a_second_distillation_is_the_first_ones_student(tiny: Make, net: Make) -> None:
    preview, first = preview_of(tiny()), stage(net(classes=7))
    assert all(isinstance(text, Note) for text in stage(net(classes=7)).check((first,), preview))
    refused("as the teacher gives", stage(net(classes=7), teacher="baseline").check((first,), preview))


@pytest.mark.parametrize(("settings", "student", "expected"), [
    ({}, {"width": 64}, []),
    ({"temperature": 1}, {"width": 64}, ["temperature 1 shows the student little"]),
    ({}, {"width": 1}, []),
])  # fmt: skip
def test_what_is_suspicious_is_a_warning(tiny: Make, net: Make, settings: Any, student: Any, expected: Any) -> None:
    said = stage(net(**student), **settings).check((), preview_of(tiny(48)))
    warnings = [text for text in said if not isinstance(text, Note)]
    assert len(warnings) == len(expected)
    assert all(re.search(text, warning) for text, warning in zip(expected, warnings, strict=True))
