"""The kind of a task is told by its targets and by what the model gives, before any work."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.targets.multi_label import MULTI_LABEL
from pipeline.build.labelling import settled, unknown_classes
from pipeline.build.probe import probe, see
from pipeline.errors import ConfigError
from pipeline.task import Split, Task, classification
from tests.draws import class_numbers, normal

SIZE = 40
CLASSES = class_numbers(SIZE, classes=3)
LABELS = (normal(SIZE, 3) > 0).float()
PIXELS = class_numbers(SIZE, 4, 5, classes=3)


def task_of(targets: Any, **rest: Any) -> Task:
    parts = [Split([(torch.tensor([float(i)]), y) for i, y in enumerate(targets)])] * 3  # type: ignore[arg-type]
    return Task(*parts, **{"loss": lambda o, t: o["output"].sum(), "score": lambda p, t: t, "logits": True, **rest})


def told(task: Task, *outputs: Tensor) -> tuple[Task, list[str]]:
    """The task as it is settled, with the first examples' outputs of a model."""
    facts = {name: see(name, split, task.ignore_index).targets for name, split in task.splits.items()}
    pairs = [(z, torch.stack([torch.as_tensor(task.train[i][1]) for i in range(len(z))])) for z in outputs]
    return settled(task, facts, pairs)


@pytest.mark.parametrize(("targets", "output", "kind", "axis"), [
    (CLASSES.tolist(), (2, 3), "single_label", 1),
    (CLASSES.to(torch.uint8), (2, 3), "single_label", 1),
    (CLASSES.float(), (2, 3), "single_label", 1),
    (CLASSES[:, None], (2, 3), "single_label", 1),
    (F.one_hot(CLASSES), (2, 3), "single_label", 1),
    (F.one_hot(CLASSES).float() * 0.9 + 0.033, (2, 3), "single_label", 1),
    (LABELS, (2, 3), "multi_label", None),
    (LABELS.bool(), (2, 3), "multi_label", None),
    (LABELS[:, 0].int(), (2, 1), "multi_label", None),
    (LABELS[:, :1], (2, 1), "multi_label", None),
    (LABELS[:, 0], (2,), "multi_label", None),
    (0.1 + 0.8 * LABELS, (2, 3), "multi_label", None),
    (PIXELS, (2, 3, 4, 5), "dense", 1),
    (PIXELS, (2, 4, 5, 3), "dense", 3),
    (PIXELS[:, None], (2, 3, 4, 5), "dense", 1),
    (PIXELS[:, 0], (2, 5, 3), "dense", 2),
    (PIXELS[:, 0], (2, 3, 5), "dense", 1),
    (F.one_hot(PIXELS).movedim(-1, 1), (2, 3, 4, 5), "dense", 1),
    (CLASSES + 1, (2, 1), "regression", None),  # a rating
    (CLASSES + 1, (2,), "regression", None),
    (normal(SIZE, 3), (2, 3), "regression", None),
    (normal(SIZE), (2, 3), "other", None),
    (PIXELS, (2, 7), "other", None),
])  # fmt: skip
def test_a_kind_is_told_by_shapes_types_and_values(targets: Any, output: Any, kind: str, axis: int | None) -> None:
    task, messages = told(task_of(targets), normal(*output))
    assert (task.target_kind, task.class_axis, messages) == (kind, axis, [])


def test_what_the_task_says_itself_stays() -> None:
    task, _ = told(task_of(F.one_hot(CLASSES), target_kind="multi_label"), normal(2, 3))
    assert task.target_kind == "multi_label"
    task, _ = told(task_of(PIXELS[:, :, :4], class_axis=3), normal(2, 4, 4, 4))
    assert task.class_axis == 3


def test_numbers_from_0_to_1_are_labels_where_there_are_logits_alone() -> None:
    assert told(task_of(normal(SIZE, 3).sigmoid(), logits=False), normal(2, 3))[0].target_kind == "regression"


def test_labels_get_their_metrics_and_are_logits_where_some_are_no_probabilities() -> None:
    own = task_of(LABELS, logits=False, metrics={"f1_micro": lambda p, t: 0.5})
    task, _ = told(own, normal(2, 3))
    assert task.logits
    assert list(task.metrics) == list(MULTI_LABEL)
    assert task.metrics["f1_micro"] is own.metrics["f1_micro"]
    task, _ = told(own, normal(2, 3).sigmoid())
    assert (task.logits, task.metrics) == (False, own.metrics)


def test_lengths_that_differ_tell_the_axis_and_else_it_is_warned_of() -> None:
    tokens = task_of(class_numbers(SIZE, 5, classes=5))
    task, (warning,) = told(tokens, normal(2, 5, 5))
    assert task.class_axis == 2
    assert "may be on axis 1 or 2; 2 is taken. Set `class_axis`" in warning
    facts = {name: see(name, split).targets for name, split in tokens.splits.items()}
    pairs = [(normal(2, 5, n), torch.zeros(2, n, dtype=torch.int64)) for n in (5, 7)]
    assert settled(tokens, facts, pairs) == (replace(tokens, target_kind="dense", class_axis=1), [])


@pytest.mark.parametrize(("void", "ignored"), [(255, 255), (-1, -1), (3, 3)])
def test_the_one_number_beyond_the_classes_is_ignored_where_the_loss_is_the_users(void: int, ignored: int) -> None:
    targets = PIXELS.where(PIXELS != 2, void)
    targets[0] = 2
    task, (note,) = told(task_of(targets), normal(2, 3, 4, 5))
    assert task.ignore_index == ignored
    assert f"targets of {void} are taken as ignored, for the model has 3 classes" in note


def test_numbers_from_one_on_are_no_reason_to_ignore_the_last_class() -> None:
    assert told(task_of(PIXELS + 1), normal(2, 3, 4, 5))[0].ignore_index == -100


@pytest.mark.parametrize(("targets", "output"), [(CLASSES, (2, 3)), (PIXELS, (2, 3, 4, 5)), (LABELS, (2, 3))])
def test_examples_without_a_label_are_left_out_of_the_score_and_not_of_training(targets: Tensor, output: Any) -> None:
    targets = targets.clone()
    targets[::4] = -100
    task, notes = told(task_of(targets), normal(*output))
    assert [len(split) for split in (task.train, task.validation, task.test)] == [40, 30, 30]
    assert notes == [
        f"task: 10 of 40 {name} examples have no label (-100) and are left out of the score"
        for name in ("validation", "test")
    ]
    with pytest.raises(ConfigError, match=r"task, train: no example has a label: all targets are -100"):
        told(task_of(torch.full_like(targets, -100)), normal(*output))


def test_minus_100_is_a_number_in_a_regression() -> None:
    task, messages = told(task_of(torch.tensor([-100.0, 3.5] * 20)), normal(2, 1))
    assert (task.target_kind, len(task.test), messages) == ("regression", 40, [])


@pytest.mark.parametrize(("targets", "message"), [
    ([0, 1, None, 1], "task, train example 2: the target is None.*give them -100"),
    ([0, {"a": None}, 0, 0], "task, train example 1: the target is None"),
    ([0, 1, 0, "b"], "task, train example 3: the target is a str; expected a number"),
])  # fmt: skip
def test_targets_that_cannot_be_are_named_with_their_example(targets: Any, message: str) -> None:
    rest = Split([(torch.ones(1), 0)])  # type: ignore[arg-type]
    train = Split([(torch.tensor([float(i)]), y) for i, y in enumerate(targets, 2)])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        probe(classification(train, train, rest))


@pytest.mark.parametrize(("train", "test", "kind", "named"), [
    ([0, 1, 1], [0, 2, 3], "single_label", "two, 3"),
    (torch.eye(3)[:2], torch.eye(3), "single_label", "two"),
    ([torch.tensor([0, 1])], [torch.tensor([0, 2, -100])], "dense", "two"),
    (torch.tensor([[1, 0, 0], [1, 1, 0]]), torch.tensor([[0, 0, 1]]), "multi_label", "two"),
    ([0, 1, 2], [0, 1], "single_label", None),
    ([1.5], [2], "regression", None),
])  # fmt: skip
def test_a_class_that_train_lacks_is_warned_of(train: Any, test: Any, kind: Any, named: str | None) -> None:
    parts = {"train": train, "validation": train, "test": test}
    facts = {name: see(name, Split([(torch.ones(1), y) for y in part])).targets for name, part in parts.items()}  # type: ignore[arg-type]
    task = task_of([0], target_kind=kind, labels=("zero", "one", "two"))
    expected = f"task: test has examples of classes that train has none of: {named}. No training can teach them"
    assert [*unknown_classes(task, facts)] == ([expected] if named else [])


@pytest.mark.parametrize(("examples", "message"), [
    ([(torch.ones(1), 0, 3)], "train example 0: task: an example is a tuple of 3; expected a pair"),
    ([{"x": torch.ones(1), "label": 0}], "task, train example 0: task: an example is a dict of 2; expected a pair"),
])  # fmt: skip
def test_an_example_that_is_no_pair_is_named(examples: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        see("train", Split(examples))


def test_a_dataset_without_positions_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a dataset is a list_iterator; expected a map-style.*list\(dataset"):
        Split(iter([(torch.ones(1), 0)]))  # type: ignore[arg-type]
