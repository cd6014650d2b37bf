"""Where the classes of an output are, and which targets count."""

from typing import Any

import pytest
import torch
from torch import Size

from pipeline.base.targets.labelling import Labelling, class_axes, of_classes
from tests.draws import normal


@pytest.mark.parametrize(("output", "targets", "axes"), [
    ((4, 3), (4,), [1]),
    ((4, 3), (4, 1), [1]),
    ((4, 3, 8, 9), (4, 8, 9), [1]),
    ((4, 3, 8, 9), (4, 1, 8, 9), [1]),
    ((4, 8, 9, 3), (4, 8, 9), [3]),
    ((4, 7, 3), (4, 7), [2]),
    ((4, 3, 7), (4, 7), [1]),
    ((4, 5, 5), (4, 5), [2, 1]),  # tokens: the last
    ((4, 6, 6, 6), (4, 6, 6), [1, 3, 2]),  # pixels: the first
    ((4, 3), (4, 3), []),
    ((4, 1), (4,), []),
    ((4, 3, 8), (4,), []),
])  # fmt: skip
def test_the_classes_are_on_the_axis_without_which_the_shapes_are_equal(output: Any, targets: Any, axes: Any) -> None:
    assert class_axes(Size(output), Size(targets)) == axes


NUMBERS = torch.tensor([[2, 0, -100], [1, -100, -100]])


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32])
def test_class_numbers_of_any_type_are_read_without_what_is_ignored(axis: int, dtype: torch.dtype) -> None:
    logits, labelling = normal(2, 3, 4).movedim(2, axis), Labelling("dense", axis)
    numbers = labelling.numbers(logits, NUMBERS.to(dtype))
    assert numbers is not None
    assert torch.equal(numbers, NUMBERS)
    assert torch.equal(labelling.numbers(logits, NUMBERS.unsqueeze(axis)), NUMBERS)  # type: ignore[arg-type]
    assert labelling.counted(logits, NUMBERS).tolist() == [[True, True, False], [True, False, False]]  # type: ignore[union-attr]
    assert torch.equal(labelling.logits(logits).movedim(-1, axis), logits)


@pytest.mark.parametrize(("labelling", "targets", "numbers"), [
    (Labelling(ignore_index=1), torch.tensor([1, 0]), [-100, 0]),
    (Labelling(), torch.tensor([[0.1, 0.6, 0.3], [0, 0, 1]]), [1, 2]),
    (Labelling(), torch.tensor([0.5, 1]), None),
    (Labelling(), torch.zeros(2, 2), None),
    (Labelling(), [0, 1], None),
    (Labelling("regression"), torch.tensor([0, 1]), None),
    (Labelling("multi_label"), torch.tensor([[1, 0, -100], [0, 0, 1]]), [[1, 0, -100], [0, 0, 1]]),
    (Labelling("multi_label"), torch.tensor([1, 0]), None),
])  # fmt: skip
def test_what_targets_say_of_logits_for_three_classes(labelling: Labelling, targets: Any, numbers: Any) -> None:
    found = labelling.numbers(normal(2, 3), targets)
    assert (found if found is None else found.tolist()) == numbers


def test_a_single_logit_is_one_label() -> None:
    assert Labelling("multi_label").numbers(normal(2, 1), torch.tensor([1, 0])).tolist() == [[1], [0]]  # type: ignore[union-attr]


def test_a_label_is_a_choice_whose_softmax_is_the_sigmoid() -> None:
    logits = normal(4, 3)
    shares = Labelling("multi_label").logits(logits).softmax(-1)
    torch.testing.assert_close(shares[..., 1], logits.sigmoid())
    assert torch.equal(shares.argmax(-1), (logits > 0).long())


def test_shares_at_positions_have_their_classes_on_axis_1() -> None:
    logits = normal(2, 3, 4, 4)
    assert of_classes(logits, logits.softmax(1)).axis == 1
    assert of_classes(logits, torch.zeros(2, 4, 4)).axis == 1
    assert of_classes(logits, torch.zeros(2, 3, 4)).axis == 3
    assert of_classes(logits, None, axis=2).axis == 2
