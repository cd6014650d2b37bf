"""Distillation of features, attention and relations, alone and in phases, as stages."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.base.use import Reference, find
from pipeline.build.probe import example_inputs
from pipeline.context import Context
from pipeline.model import TorchModel
from pipeline.run.roundtrip import save_exactly
from stages.distill.attention import AttentionDistillation
from stages.distill.combine import CombinedDistillation
from stages.distill.features import FeatureDistillation
from stages.distill.relations import RelationDistillation
from stages.kd.objective import Distillation
from stages.kd.student import Student
from stages.kd.teacher_config import TeacherConfig
from stages.trainer.loop import train
from tests.aliases import Make
from tests.contexts import preview_of, refused
from tests.trained import SHORT, live_teacher, score, teach, tiny_student

TESTS = Path(__file__).parents[2]
TEXT = TESTS.parent / "configs" / "text"
PAIR = [["conv2", "conv2"]]
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "features": (FeatureDistillation, {"layers": PAIR}),
    "maps": (AttentionDistillation, {"layers": PAIR}),
    "examples": (RelationDistillation, {}),
}
every_method = pytest.mark.parametrize("name", METHODS)


def stage(name: str, student: Student | None = None, **settings: Any) -> Any:
    made, own = METHODS[name]
    return made(student=student or tiny_student(12), **{**SHORT, **own, **settings})


@every_method
def test_a_student_learns_and_is_what_its_builder_made(tiny: Make, context: Make, tmp_path: Path, name: str) -> None:
    ctx = context()
    teacher = teach(tiny(16), ctx)
    teacher.module.zero_grad(set_to_none=True)
    before = copy.deepcopy(teacher.module.state_dict())
    chosen = stage(name)
    assert list(chosen.check((), preview_of(teacher)))
    student = chosen.run(teacher, ctx)
    assert score(student, ctx) > 0.6
    assert student.module.state_dict().keys() == tiny(4).module.state_dict().keys()
    save_exactly(student, tmp_path / "saved", TESTS)
    assert all(torch.equal(before[key], value) for key, value in teacher.module.state_dict().items())
    assert all(p.grad is None for p in teacher.module.parameters())


@every_method
def test_training_lowers_the_methods_own_loss(tiny: Make, context: Make, name: str) -> None:
    ctx = context()
    stage(name, hard_weight=0).run(teach(tiny(16), ctx), ctx)
    losses = [row["loss"] for row in context.reports["training"]]
    assert losses[-1] < 0.8 * losses[0]


def test_adapters_are_trained_and_stay_behind(tiny: Make, context: Make, tmp_path: Path) -> None:
    ctx, teacher = context(), tiny(16)
    chosen = stage("features", epochs=1)
    student = chosen.student.build(teacher, teacher.example)
    objective = Distillation(chosen.terms_of(), [live_teacher(teacher, ctx)], student, chosen, ctx)
    before = {name: value.clone() for name, value in objective.adapters.named_parameters()}
    assert sorted(tuple(value.shape) for value in before.values()) == [(16,), (16, 12, 1, 1)]
    trained = train(student, objective, chosen, ctx)
    assert all(not torch.equal(before[name], value.cpu()) for name, value in objective.adapters.named_parameters())
    save_exactly(trained, tmp_path / "saved", TESTS)


@every_method
def test_several_teachers(tiny: Make, context: Make, name: str) -> None:
    baseline, incoming = teach(tiny(16), context()), teach(tiny(8), context())
    ctx = context(baseline=baseline)
    both = (TeacherConfig(use="baseline", share=3), TeacherConfig(use="incoming"))
    assert score(stage(name, teachers=both).run(incoming, ctx), ctx) > 0.6


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("features", {"layers": [["conv3", "conv2"]]}, "the student has no layer `conv3`; did you mean `conv2`"),
    ("maps", {"layers": [["conv2", "cnov2"]]}, "the teacher has no layer `cnov2`; did you mean `conv2`"),
    ("examples", {"layer": ("conv2", "heed")}, "the teacher has no layer `heed`; did you mean `head`"),
    ("maps", {"kind": "transformer", "layers": []}, "no self-attention was found in the student"),
])  # fmt: skip
def test_layers_that_are_not_there_are_refused(tiny: Make, name: str, settings: dict[str, Any], message: str) -> None:
    refused(message, stage(name, **settings).check((), preview_of(tiny())))


def count_forwards(model: TorchModel, batch: int) -> list[int]:
    """Grows by one at each forward of the model, or of a copy, on a batch of that size."""
    seen: list[int] = []

    def see(module: nn.Module, args: Any, output: Any) -> None:
        if len(args[0]) == batch:
            seen.append(batch)

    model.module.register_forward_hook(see)
    return seen


@pytest.mark.parametrize(("end", "steps"), [(0.5, 32), (0.25, 16), (1.0, 64)])  # of 64 steps in all
def test_the_teacher_runs_while_a_term_looks_inside_it(tiny: Make, context: Make, end: float, steps: int) -> None:
    ctx = context()
    teacher = teach(tiny(16), ctx)
    seen = count_forwards(teacher, batch=32)
    terms: list[dict[str, Any]] = [{"use": "features", "layers": PAIR, "end": end}]
    if end < 1:
        terms += [{"use": "logits", "weight": 0.7, "start": end}, {"use": "labels", "weight": 0.3, "start": end}]
    CombinedDistillation(student=tiny_student(12), terms=terms, **SHORT).run(teacher, ctx)
    assert len(seen) == steps
    rest = [row["loss"] for row in context.reports["training"]][int(8 * end) :]
    assert not rest or rest[-1] < rest[0]


def test_without_kept_logits_the_teacher_runs_in_every_step(tiny: Make, context: Make) -> None:
    teacher = tiny(16)
    seen = count_forwards(teacher, batch=32)
    terms: list[dict[str, Any]] = [{"use": "features", "layers": PAIR, "end": 0.5}, {"use": "logits", "start": 0.5}]
    CombinedDistillation(student=tiny_student(12), terms=terms, cache_teacher=False, **SHORT).run(teacher, context())
    assert len(seen) == 64


@pytest.fixture(scope="module")
def text() -> Any:
    return find("data.py", TEXT).task(train=96, validation=32, test=32)


@pytest.fixture
def reading(text: Any, context: Make) -> tuple[TorchModel, Context]:
    """An untrained BERT of four layers, and the context of its task."""
    torch.manual_seed(0)
    builder = Reference(use="models.py:encoder", arguments={"hidden": 16, "layers": 4, "heads": 2}, folder=TEXT)
    return TorchModel.build(builder, example_inputs(text.train)), context(task=text)


TINYBERT = {"use": "attention", "kind": "transformer", "mask": "attention_mask"}
MINILM = {"use": "relations", "kind": "self_attention", "mask": "attention_mask"}
NARROW = Student(use="models.py:encoder", hidden=8, layers=2, heads=2, feed_forward=16, folder=TEXT)


@pytest.mark.parametrize("term", [TINYBERT, MINILM], ids=["tinybert", "minilm"])
@pytest.mark.parametrize("student", [Student(shrink_of="teacher", layers=2), NARROW], ids=["shorter", "narrower"])
def test_transformers_in_two_phases(reading: Any, tmp_path: Path, context: Make, student: Student, term: Any) -> None:
    teacher, ctx = reading
    terms = [{**term, "end": 0.75}, {"use": "logits", "start": 0.75, "weight": 0.01}]
    chosen = CombinedDistillation(student=student, terms=terms, epochs=8, batch_size=32, learning_rate=0.003)
    list(chosen.check((), preview_of(teacher, 96)))
    made = chosen.run(teacher, ctx)
    assert all(later < earlier for earlier, later in pairwise([row["loss"] for row in context.reports["training"]][:6]))
    save_exactly(made, tmp_path / "saved", TEXT)
    built = student.build(teacher, teacher.example)
    assert made.module.state_dict().keys() == built.module.state_dict().keys()
