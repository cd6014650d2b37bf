"""The figures of each class, against those of the class's examples alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.base.targets.labelling import Labelling
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.classes import absent, by_class, class_name, doubt
from pipeline.measure.statistics.means import retention

TARGETS = torch.tensor([2, 0, 0, 2, 2, 0, 2, 0])
BASELINE = torch.tensor([2, 0, 0, 2, 2, 1, 1, 0])
MODEL = torch.tensor([2, 0, 1, 0, 2, 0, 2, 0])


def evaluation(decided: Tensor, targets: Tensor | None = TARGETS, classes: int = 4, **changes: Any) -> Evaluation:
    """Of a model that decides so."""
    logits = 3 * torch.nn.functional.one_hot(decided, classes).float()
    right = (decided == (TARGETS if targets is None else targets)).double()
    found: dict[str, Any] = {"predictions": logits, "scores": right, "targets": targets}
    return Evaluation(**{**found, **changes})


def test_each_class_has_the_figures_of_its_own_examples() -> None:
    ours, theirs = evaluation(MODEL), evaluation(BASELINE)
    zero, two = by_class(ours, theirs, labels=["cat", "dog", "owl", "elk"], logits=True)
    assert (zero.label, zero.support, zero.score) == ("cat", 4, 0.75)
    assert (two.label, two.support, two.score) == ("owl", 4, 0.75)
    assert (zero.flips.lost, zero.flips.gained) == (1, 1)
    assert (two.flips.lost, two.flips.gained) == (1, 1)
    for found, number in ((zero, 0), (two, 2)):
        rows = number == TARGETS
        expected = retention(ours.scores[rows].numpy(), theirs.scores[rows].numpy())
        assert found.retention == expected
        assert expected.low < expected.value < expected.high


def test_supports_and_flips_add_up_to_those_of_the_whole() -> None:
    draw = torch.Generator().manual_seed(0)
    targets, ours, theirs = (torch.randint(0, 5, (300,), generator=draw) for _ in range(3))
    model, baseline = (evaluation(decided, targets, 5) for decided in (ours, theirs))
    found = by_class(model, baseline, labels=(), logits=True)
    assert [one.label for one in found] == ["0", "1", "2", "3", "4"]
    assert sum(one.support for one in found) == 300
    assert sum(one.score * one.support for one in found) == pytest.approx(float(model.scores.sum()))
    assert sum(one.flips.lost for one in found if one.flips) == int((baseline.scores > model.scores).sum())


def test_the_baseline_itself_has_scores_alone() -> None:
    found = by_class(evaluation(BASELINE), None, labels=(), logits=True)
    assert [(one.score, one.retention, one.flips) for one in found] == [(0.75, None, None)] * 2


def test_a_class_that_the_baseline_never_has_right_keeps_no_share_of_it() -> None:
    theirs = evaluation(torch.where(TARGETS == 2, 1, TARGETS))
    _, two = by_class(evaluation(MODEL), theirs, labels=(), logits=True)
    assert two.retention is None
    assert (two.flips.lost, two.flips.gained) == (0, 3)


@pytest.mark.parametrize(
    ("changes", "logits"),
    [
        ({}, False),
        ({"targets": None}, True),
        ({"targets": TARGETS - 1, "scores": torch.ones(8)}, True),
        ({"targets": TARGETS + 2, "scores": torch.ones(8)}, True),
        ({"scores": torch.rand(8).double() / 2}, True),
        ({"predictions": torch.rand(8, 5, 4)}, True),
    ],
    ids=["no logits", "no class numbers", "a number below 0", "a number above all", "graded scores", "token by token"],
)
def test_other_tasks_have_no_classes(changes: dict[str, Any], logits: bool) -> None:
    assert by_class(evaluation(MODEL, **changes), evaluation(BASELINE), labels=(), logits=logits) == []
    assert absent(evaluation(MODEL, **changes), (), logits) == []


def test_classes_without_an_example_are_named() -> None:
    assert absent(evaluation(MODEL), ["cat", "dog", "owl", "elk"], True) == ["dog", "elk"]


def test_a_class_without_a_name_is_its_number() -> None:
    assert [class_name(number, ["cat"]) for number in (0, 1)] == ["cat", "1"]


LABELS = Labelling("multi_label")


@pytest.mark.parametrize(("predictions", "targets", "scores", "labelling", "told"), [
    ([[1.0, 0], [0, 1]], [0, 1], [0.0, 0], Labelling(), "its score is 0 on every test example"),
    ([[1.0, 0], [0, 1]], [0, 1], [0.0, 0], None, "its score is 0 on every test example"),
    ([[1.0, 0], [3, 1]], [0, 1], [1.0, 0], Labelling(), "it predicts the class cat for every test example"),
    ([[1.0, 0], [3, 1]], [0, 0], [1.0, 1], Labelling(), ""),  # there is no other
    ([[1.0, 0], [3, 1]], [0, -100], [1.0, 1], Labelling(), ""),
    ([[1.0, 0], [0, 1]], [0, 1], [1.0, 1], Labelling(), ""),
    ([[-1.0, -2], [-3, -1]], [[0, 1], [0, 0]], [0.5, 1], LABELS, "it predicts no label of every test example"),
    ([[-1.0, 2], [-3, -1]], [[0, 1], [0, 0]], [1.0, 1], LABELS, ""),
])  # fmt: skip
def test_a_model_that_is_of_no_use_is_doubted(
    predictions: Any, targets: Any, scores: Any, labelling: Labelling | None, told: str
) -> None:
    last = Evaluation(torch.tensor(predictions), torch.tensor(scores), targets=torch.tensor(targets))
    baseline = Evaluation(last.predictions, torch.ones(len(scores)), targets=last.targets)
    assert doubt(last, baseline, labelling, ("cat", "dog")) == told


def test_a_score_that_is_best_at_0_is_not_doubted() -> None:
    last = Evaluation(torch.ones(2), torch.zeros(2))
    assert doubt(last, Evaluation(torch.zeros(2), torch.tensor([-1.0, 0])), None, ()) == ""
