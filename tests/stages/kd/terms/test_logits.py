"""The term on logits in tasks of each kind: sigmoids for labels, classes on their axis, what it refuses."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.targets.labelling import Kind, Labelling
from pipeline.errors import ConfigError, StageError
from pipeline.task import Batch
from stages.kd.checks import expect_kind
from stages.kd.terms.logits import Logits
from stages.kd.terms.relations import Relations
from stages.kd.terms.term import ModelOutputs, Term, TermInputs
from tests.contexts import preview_of
from tests.draws import class_numbers, normal

LABELS = Labelling("multi_label")
STUDENT, *TEACHERS = (normal(6, 4, seed=seed, scale=2) for seed in range(3))
TARGETS = (normal(6, 4, seed=4) > 0).long()


def loss(
    term: Term, labelling: Labelling, student: Tensor, teachers: Any, targets: Any, average: Any = "logits"
) -> Tensor:
    answers = tuple(ModelOutputs({"z": teacher}) for teacher in teachers)
    outputs = {"z": student}
    batch = Batch(torch.arange(len(student)), {}, targets)
    shares = tuple(1 / len(answers) for _ in answers)
    inputs = TermInputs(batch, outputs, (), answers, shares, average, lambda *_: student.sum(), labelling)
    return term.loss(inputs, [])


@pytest.mark.parametrize("temperature", [None, 1.0, 3.0])
def test_each_label_has_the_divergence_of_its_sigmoid(temperature: float | None) -> None:
    t = temperature or 0.5
    p, q = (TEACHERS[0] / t).sigmoid(), (STUDENT / t).sigmoid()
    expected = t**2 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    found = loss(Logits(temperature=temperature), LABELS, STUDENT, TEACHERS[:1], TARGETS)
    torch.testing.assert_close(found, expected)
    # The same up to the entropy of the teacher, which has no gradient.
    cross = F.binary_cross_entropy_with_logits(STUDENT / t, p) - F.binary_cross_entropy(p, p)
    torch.testing.assert_close(found, t**2 * cross)


def test_probabilities_of_several_teachers_are_averaged_label_by_label() -> None:
    mean = (TEACHERS[0].sigmoid() + TEACHERS[1].sigmoid()) / 2
    expected = loss(Logits(temperature=1), LABELS, STUDENT, [mean.logit()], TARGETS)
    torch.testing.assert_close(
        loss(Logits(temperature=1), LABELS, STUDENT, TEACHERS, TARGETS, "probabilities"), expected
    )


def test_a_label_that_is_ignored_does_not_count() -> None:
    targets = TARGETS.clone()
    targets[:, 1] = -100
    kept = [0, 2, 3]
    expected = loss(Logits(), LABELS, STUDENT[:, kept], [TEACHERS[0][:, kept]], TARGETS[:, kept])
    torch.testing.assert_close(loss(Logits(), LABELS, STUDENT, TEACHERS[:1], targets), expected)
    assert float(loss(Logits(), LABELS, STUDENT, TEACHERS[:1], torch.full_like(targets, -100))) == 0


@pytest.mark.parametrize("objective", ["kl", "dkd", "dist"])
@pytest.mark.parametrize("axis", [1, 3])
def test_pixels_are_compared_on_the_axis_of_their_classes_where_they_count(objective: Any, axis: int) -> None:
    student, teacher = (normal(2, 4, 5, 3, seed=seed) for seed in range(2))
    targets = class_numbers(2, 4, 5, classes=3)
    targets[0, :2], targets[1, 1, 1] = 255, -100
    counted = (targets != 255) & (targets != -100)
    term, dense = Logits(objective=objective), Labelling("dense", axis, ignore_index=255)
    expected = loss(term, Labelling(), student[counted], [teacher[counted]], targets[counted])
    moved = [values.movedim(-1, axis) for values in (student, teacher)]
    torch.testing.assert_close(loss(term, dense, moved[0], moved[1:], targets), expected)
    own = Logits(objective=objective, axis=axis, ignore=255)
    torch.testing.assert_close(loss(own, Labelling("other"), moved[0], moved[1:], targets), expected)


def test_dkd_says_that_targets_are_no_classes() -> None:
    with pytest.raises(StageError, match=r"objective: dkd: the targets are a dict.*Use `objective: kl`"):
        loss(Logits(objective="dkd"), Labelling(), STUDENT, TEACHERS[:1], {"label": TARGETS})


@pytest.mark.parametrize(("term", "refused"), [
    (Logits(), {"regression": "no logits to distill in a regression"}),
    (Logits(mass=0.9), {"regression": "no logits", "multi_label": "`mass` takes tasks of one class"}),
    (Logits(objective="dist"), {"regression": "no logits", "multi_label": "`objective: dist` takes tasks"}),
    (Logits(objective="dkd"), {"regression": "no logits", "multi_label": "`objective: dkd` takes tasks of one class",
                               "other": "`objective: dkd` .* the task is other .* give class numbers as targets"}),
    (Relations(), {"dense": "`kind: examples` compares one vector .*, and the task is dense .* Name a `layer`"}),
    (Relations(layer=("a", "b")), {}),
    (Relations(kind="self_attention"), {}),
])  # fmt: skip
def test_a_term_refuses_the_kinds_that_it_cannot_take_before_any_work(term: Term, refused: dict[str, str]) -> None:
    kinds: tuple[Kind, ...] = ("single_label", "multi_label", "dense", "regression", "other")
    for kind in kinds:
        preview = preview_of(None, target_kind=kind)
        if kind in refused:
            with pytest.raises(ConfigError, match=refused[kind]):
                expect_kind([term], preview)
        else:
            expect_kind([term], preview)


@pytest.mark.parametrize(("kind", "temperature", "warned"), [
    ("single_label", None, 0), ("single_label", 1, 1), ("multi_label", None, 0), ("multi_label", 4, 1),
])  # fmt: skip
def test_labels_are_usually_not_softened(kind: Any, temperature: float | None, warned: int) -> None:
    preview = replace(preview_of(None, target_kind=kind))
    assert len([*Logits(temperature=temperature).check_models(torch.nn.Identity(), [], preview)]) == warned
