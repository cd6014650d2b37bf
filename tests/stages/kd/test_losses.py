"""What the losses of features, of attention and of relations have in common: masks, dtypes, gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.errors import StageError
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


@pytest.mark.parametrize(("loss", "shape"), [
    *((loss, (3, 4, 5, 5)) for loss in (hint_loss, activation_transfer_loss, attention_loss)),
    *((loss, (5, 4)) for loss in (distance_loss, angle_loss)),
])  # fmt: skip
def test_half_precision_is_computed_in_single(loss: Loss, shape: Shape) -> None:
    student, teacher = ((300 * normal(*shape, seed=i)).half() for i in range(2))  # their squares overflow
    student.requires_grad_()
    found = loss(student, teacher)
    found.backward()
    assert float(found.detach()) == pytest.approx(float(loss(student.double(), teacher.double()).detach()), rel=1e-3)
    assert bool(torch.isfinite(student.grad).all())  # type: ignore[arg-type]


@pytest.mark.parametrize(("loss", "ours", "theirs", "how", "message"), [
    (hint_loss, (4, 6), (4, 8), {}, r"teacher's features has the shape \(4, 8\); expected \(4, 6\)"),
    (hint_loss, (3, 5, 6), (3, 5, 6), {"mask": torch.ones(3, 6)}, r"mask has the shape \(3, 6\); expected \(3, 5\)"),
    (activation_transfer_loss, (2, 3), (2, 3), {}, r"\(2, 3\) have no activation map"),
    (activation_transfer_loss, (2, 3, 4), (2, 3, 4, 4), {}, "as many examples and axes"),
    (activation_transfer_loss, (2, 3, 4), (1, 3, 4), {}, "as many examples and axes"),
    (attention_loss, (3, 2, 5, 5), (3, 4, 5, 5), {}, "student has 2 attention heads, the teacher 4"),
    (attention_loss, (3, 2, 5, 5), (3, 2, 6, 6), {}, "teacher's attention has the shape"),
    (attention_loss, (3, 2, 5, 5), (3, 2, 5, 5), {"mask": torch.ones(5, 3)}, r"shape \(5, 3\); expected \(3, 5\)"),
    (distance_loss, (1, 4), (1, 4), {}, r"as many, and 2 or more\. Raise batch_size"),
    (angle_loss, (2, 4), (2, 4), {}, "as many, and 3 or more"),
    (distance_loss, (4, 4), (5, 4), {}, "student gives 4 examples, the teacher 5"),
    (attention_relation_loss, (2, 3, 5, 4), (2, 4, 5, 5), {"heads": 5}, "5 relation heads do not divide a width of 12"),
    (attention_relation_loss, (2, 3, 5, 4), (2, 3, 6, 4), {"heads": 2}, "as many examples and positions"),
    (attention_relation_loss, (2, 3, 5, 4), (2, 3, 5, 4), {"heads": 2, "mask": torch.ones(2, 3)},
     r"mask has the shape \(2, 3\); expected \(2, 5\)"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(loss: Loss, ours: Shape, theirs: Shape, how: Any, message: str) -> None:
    with pytest.raises(StageError, match=message):
        loss(normal(*ours), normal(*theirs), **how)
