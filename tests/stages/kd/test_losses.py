"""What the losses of features, of attention and of relations have in common: masks, dtypes, gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from stages.kd.losses.attention import activation_transfer_loss, attention_loss
from stages.kd.losses.features import hint_loss
from stages.kd.losses.relations import angle_loss, attention_relation_loss, distance_loss
from tests.draws import normal

Loss = Callable[..., Tensor]
Shape = tuple[int, ...]

PARTLY = torch.tensor([[1, 1, 0], [0, 0, 0]])
GRADIENTS = [
    (hint_loss, (2, 3, 4), (2, 3, 4), {"mask": PARTLY}),
    (hint_loss, (2, 3, 4), (2, 3, 4), {"mask": PARTLY, "normalize": True}),
    (activation_transfer_loss, (2, 3, 4, 4), (2, 5, 2, 2), {}),
    (activation_transfer_loss, (2, 3, 4, 4), (2, 5, 2, 2), {"power": 3}),
    (attention_loss, (2, 2, 3, 3), (2, 2, 3, 3), {"mask": PARTLY}),
    (distance_loss, (4, 3), (4, 5), {}),
    (angle_loss, (4, 3), (4, 5), {}),
    (partial(attention_relation_loss, heads=2), (2, 2, 3, 2), (2, 1, 3, 8), {"mask": PARTLY}),
]


@pytest.mark.parametrize(("loss", "ours", "theirs", "how"), GRADIENTS)
def test_gradients_are_those_of_finite_differences(loss: Loss, ours: Shape, theirs: Shape, how: Any) -> None:
    student, teacher = normal(*ours).requires_grad_(), normal(*theirs, seed=1)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher, **how), (student,))


@pytest.mark.parametrize(("loss", "ours", "theirs", "how"), [row for row in GRADIENTS if "mask" in row[3]])
def test_a_mask_of_zeros_gives_no_loss_or_gradient(loss: Loss, ours: Shape, theirs: Shape, how: Any) -> None:
    student = normal(*ours).requires_grad_()
    nothing = loss(student, normal(*theirs, seed=1), **{**how, "mask": torch.zeros(2, 3)})
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert float(student.grad.abs().max()) == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        *((loss, (3, 4, 5, 5)) for loss in (hint_loss, activation_transfer_loss, attention_loss)),
        *((loss, (5, 4)) for loss in (distance_loss, angle_loss)),
    ],
)
def test_half_precision_is_computed_in_single(loss: Loss, shape: Shape) -> None:
    student, teacher = ((300 * normal(*shape, seed=i)).half() for i in range(2))  # their squares overflow
    student.requires_grad_()
    found = loss(student, teacher)
    found.backward()
    assert float(found.detach()) == pytest.approx(float(loss(student.double(), teacher.double()).detach()), rel=1e-3)
    assert bool(torch.isfinite(student.grad).all())  # type: ignore[arg-type]
