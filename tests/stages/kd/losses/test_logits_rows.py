"""Which positions count, and what all losses of logits have in common: axes, masks, dtypes, batches, gradients."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipeline.errors import StageError
from stages.kd.losses.logits import decoupled_loss, dist_loss, rows, soft_loss
from stages.kd.losses.sparse import sparse_soft_loss, sparsify
from tests.draws import class_numbers, normal

logits = functools.partial(normal, scale=2)

Loss = Callable[..., Tensor]


def decoupled(student: Tensor, teacher: Tensor, temperature: float, *, axis: int = -1, **given: Tensor) -> Tensor:
    """With the teacher's best classes as the targets, so that it is called as the others are."""
    return decoupled_loss(student, teacher, teacher.argmax(axis), temperature, axis=axis, **given)


def sparse(student: Tensor, teacher: Tensor, temperature: float, *, axis: int = -1, **given: Tensor) -> Tensor:
    return sparse_soft_loss(student, sparsify(teacher, 3, temperature, axis=axis), temperature, axis=axis, **given)


LOSSES = pytest.mark.parametrize("loss", [soft_loss, decoupled, dist_loss, sparse])


def test_rows_are_the_vectors_along_the_axis_in_their_order() -> None:
    given = logits(2, 5, 3, 4)
    expected = torch.stack([given[n, :, i, j] for n in range(2) for i in range(3) for j in range(4)])
    assert torch.equal(rows(given, 1), expected)
    assert torch.equal(rows(given, -3), expected)
    mask = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(3)) < 0.5
    assert torch.equal(rows(given, 1, mask), expected[mask.flatten()])
    assert torch.equal(rows(given, 1, mask.float()), expected[mask.flatten()])


def test_rows_of_half_precision_are_computed_in_single() -> None:
    assert rows(logits(2, 3).bfloat16()).dtype == torch.float32
    assert rows(logits(2, 3)).dtype == torch.float64


@pytest.mark.parametrize(("call", "message"), [
    (lambda z: rows(z, -1, torch.ones(2, 4)), r"mask has the shape \(2, 4\); expected \(2, 3\)"),
    (lambda z: rows(z, 3), "no axis 3"),
    (lambda z: soft_loss(z, z[:1], 1.0), r"teacher's logits has the shape \(1, 3, 4\); expected \(2, 3, 4\)"),
    (lambda z: soft_loss(z[..., :1], z[..., :1], 1.0), "1 class on axis -1"),
    (lambda z: decoupled_loss(z, z, class_numbers(2, 4, classes=4), 1.0), r"targets has the shape \(2, 4\)"),
    (lambda z: decoupled(z, z, 1.0, mask=torch.ones(1, 3)), r"mask has the shape \(1, 3\)"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(call: Loss, message: str) -> None:
    with pytest.raises(StageError, match=message):
        call(logits(2, 3, 4))


@LOSSES
@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -2])
def test_any_axis_can_hold_the_classes(loss: Loss, axis: int) -> None:
    student, teacher = logits(3, 4, 5, 6), logits(3, 4, 5, 6, seed=1)
    flat = [z.movedim(axis, -1).flatten(0, 2) for z in (student, teacher)]
    assert float(loss(student, teacher, 2.0, axis=axis)) == pytest.approx(float(loss(*flat, 2.0)), rel=1e-12)


@LOSSES
@pytest.mark.parametrize("kind", [torch.bool, torch.int64, torch.float32])
def test_what_is_masked_does_not_count_even_when_it_is_nan(loss: Loss, kind: torch.dtype) -> None:
    student, teacher = logits(3, 6, 5), logits(3, 6, 5, seed=1)
    mask = torch.arange(6)[None] < torch.tensor([6, 2, 3])[:, None]
    kept = loss(student[mask], teacher[mask], 2.0)
    student[~mask] = torch.nan
    teacher[~mask] = 1e30
    student.requires_grad_()
    found = loss(student, teacher, 2.0, mask=mask.to(kind))
    found.backward()
    assert float(found) == pytest.approx(float(kept), rel=1e-12)
    assert bool((student.grad[~mask] == 0).all())
    assert bool((student.grad[mask].abs().sum(-1) > 0).all())


@LOSSES
def test_a_mask_of_zeros_gives_no_loss_or_gradient(loss: Loss) -> None:
    student = logits(3, 6, 5).requires_grad_()
    found = loss(student, logits(3, 6, 5, seed=1), 2.0, mask=torch.zeros(3, 6))
    found.backward()
    assert float(found.detach()) == 0
    assert float(student.grad.abs().max()) == 0


@LOSSES
@pytest.mark.parametrize("times", [2, 5])
def test_a_batch_repeated_has_the_loss_of_the_batch(loss: Loss, times: int) -> None:
    student, teacher = logits(7, 5), logits(7, 5, seed=1)
    repeated = loss(student.repeat(times, 1), teacher.repeat(times, 1), 3.0)
    assert float(repeated) == pytest.approx(float(loss(student, teacher, 3.0)), rel=1e-12)


@LOSSES
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_student_that_equals_its_teacher_up_to_a_shift_has_no_loss(loss: Loss, temperature: float) -> None:
    teacher = logits(6, 5)
    student = (teacher + 1.5).requires_grad_()
    found = loss(student, teacher, temperature)
    found.backward()
    assert float(found.detach()) == pytest.approx(0, abs=1e-12)
    assert float(student.grad.abs().max()) < 1e-12


@LOSSES
@pytest.mark.parametrize("temperature", [0.7, 4.0])
def test_gradients_are_those_of_finite_differences(loss: Loss, temperature: float) -> None:
    student, teacher = logits(2, 5, 4).requires_grad_(), logits(2, 5, 4, seed=1)
    mask = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1]])
    along = functools.partial(loss, teacher=teacher, temperature=temperature, axis=1, mask=mask)
    assert torch.autograd.gradcheck(lambda z: along(z), (student,))


def gradient_size(loss: Loss, temperature: float) -> float:
    """For logits of size 0.1: small beside every T from 1 on, where the claims about T^2 are exact in the limit."""
    student = (logits(16, 10) / 20).requires_grad_()
    loss(student, logits(16, 10, seed=1) / 20, temperature).backward()
    return float(student.grad.norm())


@pytest.mark.parametrize(("loss", "power"), [(soft_loss, 0), (decoupled, 0), (sparse, 0), (dist_loss, 2)])
def test_t_squared_keeps_the_size_of_the_gradient_but_that_of_correlations_grows_so(loss: Loss, power: int) -> None:
    sizes = [gradient_size(loss, float(temperature)) / temperature**power for temperature in range(1, 21)]
    assert max(sizes) < 1.1 * min(sizes)  # 400 without the factor
    assert sizes[-1] == pytest.approx(sizes[-2], rel=1e-3)


@LOSSES
def test_large_logits_in_half_precision_stay_finite(loss: Loss) -> None:
    student = (300 * logits(4, 6).float()).half().requires_grad_()
    found = loss(student, (300 * logits(4, 6, seed=1).float()).half(), 1.0)
    found.backward()
    assert found.dtype == torch.float32
    assert bool(torch.isfinite(found))
    assert bool(torch.isfinite(student.grad).all())  # type: ignore[arg-type]
