"""Hinton's loss against its textbook formula, written out with plain sums in float64, and against its own claims."""

from functools import partial

import pytest
import torch
from torch import Tensor

from stages.kd.losses.logits import soft_loss
from tests.draws import normal

logits = partial(normal, scale=3)


def textbook(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """T^2 / N * sum_n sum_i p_i (log p_i - log q_i), p of the teacher, q of the student, without any library's KL."""
    p, q = ((z.double() / temperature).exp() for z in (teacher, student))
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    return float(temperature**2 * (p * (p.log() - q.log())).sum() / len(p))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("shape", [(1, 2), (8, 10), (3, 100), (4, 6, 10)])
def test_soft_loss_is_the_textbook_formula(shape: tuple[int, ...], temperature: float) -> None:
    student, teacher = logits(*shape), logits(*shape, seed=1)
    expected = textbook(student.reshape(-1, shape[-1]), teacher.reshape(-1, shape[-1]), temperature)
    assert float(soft_loss(student, teacher, temperature)) == pytest.approx(expected, rel=1e-9)


def test_soft_loss_is_not_divided_by_the_classes() -> None:
    # A class that both rule out adds nothing; a mean over classes would shrink the loss by 10/11.
    student, teacher = logits(4, 10), logits(4, 10, seed=1)
    never = torch.full((4, 1), -200.0, dtype=torch.float64)
    wider = soft_loss(torch.cat([student, never], 1), torch.cat([teacher, never], 1), 1.0)
    assert float(wider) == pytest.approx(float(soft_loss(student, teacher, 1.0)))


def test_soft_loss_takes_the_direction_from_teacher_to_student() -> None:
    # Where the teacher is certain, KL(teacher || student) is the student's -log of that class; the reverse is infinite.
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[200.0, 0.0]])
    assert float(soft_loss(student, teacher, 1.0)) == pytest.approx(0.693147, abs=1e-5)


def test_gradient_at_high_temperature_matches_logits() -> None:
    # Hinton et al., equation 4: dC/dz_i = (z_i - v_i) / (N T^2) for logits of zero mean; T^2 cancels, and the batch
    # mean divides by B.
    student, teacher = logits(5, 7).requires_grad_(), logits(5, 7, seed=1)
    soft_loss(student, teacher, 1e4).backward()
    centred = [z - z.mean(1, keepdim=True) for z in (student.detach(), teacher)]
    torch.testing.assert_close(student.grad, (centred[0] - centred[1]) / 7 / 5, rtol=1e-3, atol=1e-5)


def test_logits_far_apart_stay_finite_in_single_precision() -> None:
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = soft_loss(student, torch.tensor([[-1e4, 1e4]]), 1.0)
    loss.backward()
    assert float(loss) == pytest.approx(2e4)
    assert torch.isfinite(student.grad).all()  # type: ignore[arg-type]
