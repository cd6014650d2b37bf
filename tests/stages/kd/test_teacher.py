"""Teachers: several of them, of other inputs and from files, asked once an example or in every step."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_model
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.errors import ConfigError, Note, StageError
from pipeline.model import TorchModel
from pipeline.runner import run
from pipeline.task import Batch
from stages.distill.logits import LogitDistillation
from stages.kd import teacher
from stages.kd.objective import Distillation
from stages.kd.student import Student
from stages.kd.teacher import Teacher
from stages.kd.teacher_config import TeacherConfig, TeacherSettings, code_of
from stages.kd.terms.logits import Logits
from stages.kd.terms.term import ModelOutputs, TermInputs
from stages.trainer.objective import Progress
from tests.aliases import Make
from tests.contexts import preview_of, refused
from tests.trained import noisy, tiny_student

HERE = Path(__file__).parents[2]
STUDENT = tiny_student()
NOISE = partial(noisy, scale=0.1)


def sharp(model: TorchModel) -> TorchModel:
    """Logits that are far apart: those of an untrained network say next to nothing."""
    with torch.no_grad():
        model.module.head.weight.mul_(20)  # type: ignore[union-attr, operator]
    return model


def losses(tiny: Make, context: Make, **settings: Any) -> list[float]:
    """Of each epoch of a training with labels and teacher."""
    augment = settings.pop("augment", None)
    stage = LogitDistillation(student=STUDENT, **{"epochs": 3, "batch_size": 32, "learning_rate": 0.01, **settings})
    stage.run(sharp(tiny(16)), context(augment=augment))
    return [row["loss"] for row in context.reports["training"]]


def test_the_loss_is_the_same_whether_the_teacher_runs_once_or_in_every_step(tiny: Make, context: Make) -> None:
    once = losses(tiny, context)
    assert once == pytest.approx(losses(tiny, context, cache_teacher=False), rel=1e-5)
    assert once != pytest.approx(losses(tiny, context, temperature=2.0), rel=1e-3)
    every = losses(tiny, context, augment=NOISE)
    assert every == pytest.approx(losses(tiny, context, augment=NOISE, views=3), rel=1e-5)  # as many as epochs
    fewer = losses(tiny, context, augment=NOISE, views=1)
    assert fewer[0] == pytest.approx(every[0], rel=1e-5)
    assert fewer[1:] != pytest.approx(every[1:], rel=1e-5)


def notes(model: TorchModel, augmented: bool = False, **settings: Any) -> list[str]:
    preview = preview_of(model, augment=(lambda inputs, seed, view: inputs) if augmented else None)
    said = LogitDistillation(student=STUDENT, **settings).check((), preview)
    return [text for text in said if isinstance(text, Note)]


@pytest.mark.parametrize(("augmented", "settings", "expected"), [
    (False, {}, "runs once an example; its logits take 4.1 kB on disk"),
    (True, {"views": 10}, "runs once an example in 10 views; its logits take 41.0 kB on disk"),
    (False, {"cache_teacher": False}, "runs in every step: cache_teacher is false"),
    (True, {}, "runs in every step: each epoch shows a new augmentation; `views: 10` would keep ten"),
])  # fmt: skip
def test_the_plan_says_how_a_teacher_runs(tiny: Make, augmented: bool, settings: Any, expected: str) -> None:
    (said,) = notes(tiny(), augmented, **settings)
    assert expected in said


def test_logits_that_the_disk_has_no_room_for_are_not_kept(tiny: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SimpleNamespace(free=6000)
    monkeypatch.setattr(teacher.shutil, "disk_usage", lambda folder: disk)
    (said,) = notes(tiny())
    assert "runs in every step: its logits would take 4,096 of 6,000 free bytes" in said
    disk.free = 9000
    assert "runs once" in notes(tiny())[0]


def batch_of(ctx: Context, size: int = 16) -> Batch:
    return next(iter(ctx.train.loader(size, order=(0, 0))))


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize("cache", [True, False])
def test_several_teachers_are_one_with_a_weighted_mean(tiny: Make, context: Make, average: Any, cache: bool) -> None:
    ctx, models, student = context(), [sharp(tiny(16, seed)) for seed in (1, 2)], tiny(4)
    shares = zip((3.0, 1.0), models, strict=True)
    teachers = [Teacher(TeacherConfig(use="incoming", share=share), model, ctx) for share, model in shares]
    settings = TeacherSettings(average=average, cache_teacher=cache)
    objective = Distillation([Logits(temperature=2.0)], teachers, student, settings, ctx)
    objective.watch(student.module)
    batch = batch_of(ctx)
    ours = student.predict(batch.inputs)
    loss = objective(batch, ours, Progress())
    a, b = (model.predict(batch.inputs)["output"] for model in models)
    if average == "logits":
        target = F.softmax((3 * a + b) / 4 / 2, -1)
    else:
        target = (3 * F.softmax(a / 2, -1) + F.softmax(b / 2, -1)) / 4
    expected = 4 * F.kl_div(F.log_softmax(ours["output"] / 2, -1), target, reduction="batchmean")
    other = F.softmax((a + b) / 2 / 2, -1)
    assert not torch.allclose(target, other, atol=1e-2)  # the shares matter
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)


def test_the_largest_classes_are_of_one_teacher(tiny: Make, context: Make) -> None:
    stage = LogitDistillation(student=STUDENT, mass=0.9, teachers=("incoming", "incoming"))
    refused(r"`mass` keeps the largest classes of one teacher; there are 2", stage.check((), preview_of(tiny())))
    with pytest.raises(StageError, match="largest classes of one teacher"):
        stage.run(tiny(), context())


RESIZE = """
import torch
from torch import nn
from torch.nn import functional as F

def resize(inputs):
    return {"input": F.interpolate(inputs["input"], scale_factor=2)}

class Wide(nn.Module):
    def __init__(self, size=16, classes=4):
        super().__init__()
        self.size, self.head = size, nn.Linear(size * size, classes)

    def forward(self, x):
        if x.shape[-1] != self.size:
            raise ValueError(f"{x.shape[-1]} pixels")
        return self.head(x.flatten(1))

class Sound(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(x)

class Both(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.a, self.b = nn.Linear(64, classes), nn.Linear(6, classes)

    def forward(self, image, sound):
        return self.a(image.flatten(1)) + self.b(sound)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "other.py").write_text(RESIZE)
    return tmp_path


def test_a_teacher_takes_another_size_through_a_function(tiny: Make, context: Make, folder: Path) -> None:
    ctx = context()
    teacher = TeacherConfig(use="other.py:Wide", inputs=Reference(use="other.py:resize", folder=folder), folder=folder)
    model = teacher.open(None, None, {"input": torch.zeros(2, 1, 8, 8)})
    assert model.example["input"].shape == (2, 1, 16, 16)
    live = Teacher(teacher, model, ctx)
    batch = batch_of(ctx)
    larger = F.interpolate(batch.inputs["input"], scale_factor=2)
    assert torch.equal(live(batch.inputs)["output"], model.predict({"input": larger})["output"])
    stage = LogitDistillation(student=STUDENT, teachers=(teacher,), epochs=1, hard_weight=0)
    assert len(list(stage.check((), preview_of(tiny()))))
    stage.run(tiny(), ctx)


def test_a_teacher_of_another_modality_takes_the_inputs_that_it_names(context: Make, folder: Path) -> None:
    example = {"image": torch.randn(2, 1, 8, 8), "sound": torch.randn(2, 6)}
    data = [({"image": torch.randn(1, 8, 8), "sound": torch.randn(6)}, i % 4) for i in range(32)]
    ctx = context(train=replace(context().train, dataset=data), validation=replace(context().train, dataset=data))
    student = Student(use="other.py:Both", folder=folder)
    incoming = TorchModel.build(Reference(use="other.py:Both", folder=folder), example)
    teacher = TeacherConfig(use="other.py:Sound", inputs=("sound",), folder=folder)
    stage = LogitDistillation(student=student, teachers=(teacher,), epochs=2, batch_size=16)
    list(stage.check((), preview_of(incoming, 32)))
    stage.run(incoming, ctx)
    wrong = stage.model_copy(update={"teachers": (teacher.model_copy(update={"inputs": ("smell",)}),)})
    with pytest.raises(ConfigError, match=r"there is no input `smell` for the teacher.*\['image', 'sound'\]"):
        list(wrong.check((), preview_of(incoming, 32)))


def test_a_teacher_of_other_classes_is_named_before_work(tiny: Make, folder: Path) -> None:
    odd = TeacherConfig(use="other.py:Wide", arguments={"size": 8, "classes": 7}, folder=folder)
    stage = LogitDistillation(student=STUDENT, teachers=(TeacherConfig(use="incoming"), odd))
    refused(r"logits \(2, 4\); expected \(2, 7\), as teachers\[1\] gives", stage.check((), preview_of(tiny())))


def test_teachers_come_from_weights_and_from_saved_folders(tiny: Make, folder: Path) -> None:
    trained = tiny(8, seed=4)
    save_model(trained.module, str(folder / "net.safetensors"))
    trained.save(folder / "saved")
    (folder / "conftest.py").write_text((HERE / "conftest.py").read_text())
    built = TeacherConfig(use="conftest.py:TinyNet", arguments={"width": 8}, weights="net.safetensors", folder=folder)
    saved = TeacherConfig(saved="saved", folder=folder)
    for config in (built, saved):
        opened = config.open(None, None, trained.example)
        assert torch.equal(opened.predict(trained.example)["output"], trained.predict(trained.example)["output"])
    assert built.files() == [folder / "net.safetensors"]
    assert {file.name for file in saved.files()} >= {"weights.safetensors", "model.json"}


TEACHERS = """
task: {use: data.py}
model: {use: models.py:TinyNet, width: 8}
stages:
  - use: distill.logits
    student: {use: models.py:TinyNet, width: 4}
    teachers: [{use: models.py:TinyNet, width: 16, weights: teacher.safetensors}]
    epochs: 1
"""


def test_another_file_of_weights_is_another_result(project: Make, tiny: Make, tmp_path: Path) -> None:
    chain = project(TEACHERS)
    found = []
    for seed in (1, 1, 2):
        save_model(tiny(16, seed).module, str(chain.parent / "teacher.safetensors"))
        found.append(run(chain, runs=tmp_path / "runs", track=False).stages[0])
    assert [stage.cached for stage in found] == [False, True, False]


def test_what_is_kept_depends_on_the_code_that_changes_the_inputs(folder: Path) -> None:
    reference = Reference(use="other.py:resize", folder=folder)
    before = code_of(reference)
    assert before == code_of(reference)
    (folder / "other.py").write_text(RESIZE.replace("scale_factor=2", "scale_factor=2, mode='bilinear'"))
    assert code_of(reference) != before
    assert code_of(Reference(use="torch.nn:Identity")) is None
    assert code_of(None) is None


def test_padding_by_targets_and_by_mask_does_not_count(context: Make, tiny: Make) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, 7, dtype=torch.float64)
    targets = torch.randint(0, 7, (5, 3))
    targets[0, 1:] = -100
    mask = torch.ones(5, 3)
    mask[4] = 0

    def loss(method: Logits, targets: Any = targets) -> Tensor:
        batch = Batch(torch.arange(5), {"mask": mask}, targets)
        seen = [ModelOutputs({"logits": values}) for values in (student, teacher)]
        rest: Any = ((1.0,), "logits", lambda *_: torch.zeros(()))
        return method.loss(TermInputs(batch, seen[0].outputs, (seen[0],), (seen[1],), *rest), [])

    def by_hand(counted: Tensor) -> Tensor:
        log_q, p = F.log_softmax(student / 2, -1)[counted], F.softmax(teacher / 2, -1)[counted]
        return 4 * F.kl_div(log_q, p, reduction="batchmean")

    torch.testing.assert_close(loss(Logits(temperature=2, ignore=-100)), by_hand(targets != -100))
    counted = by_hand((targets != -100) & (mask != 0))
    torch.testing.assert_close(loss(Logits(temperature=2, ignore=-100, mask="mask")), counted)
    torch.testing.assert_close(loss(Logits(temperature=2)), by_hand(targets != -100))
    torch.testing.assert_close(loss(Logits(temperature=2, ignore=0)), by_hand(targets > 0))
    with pytest.raises(StageError, match=r"the targets are a tensor of shape \(5, 7\); expected a tensor \(5, 3\)"):
        loss(Logits(ignore=-100), targets=torch.zeros(5, 7))
    with pytest.raises(StageError, match="the targets are a list; expected a tensor"):
        loss(Logits(ignore=-100), targets=[0])


@pytest.mark.parametrize(("temperature", "warns"), [(4.0, False), (5.0, True)])
def test_dist_at_a_high_temperature_is_suspicious(tiny: Make, temperature: float, warns: bool) -> None:
    said = LogitDistillation(student=STUDENT, objective="dist", temperature=temperature).check((), preview_of(tiny()))
    assert any("grows with T^2" in text for text in said) is warns
