"""Distillation of logits.

`soft_loss` is the one of Hinton, Vinyals and Dean: Distilling the Knowledge in a Neural Network, 2015, 1503.02531. All
losses here take logits of any shape with the classes on any axis, and a mask that says which positions count; their
mean is over those that do, and is 0, with gradient 0, where none does. Half precision is computed in single.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import StageError


def rows(logits: Tensor, axis: int = -1, mask: Tensor | None = None) -> Tensor:
    """(R, classes): the vectors along `axis` that count, in their order, in single precision or better.

    Args:
        logits: any shape, at least one axis.
        axis: that of the classes.
        mask: the shape of the logits without `axis`, bool or 0 and 1; None counts every position.

    Raises:
        StageError: there is no such axis, or the mask has another shape.
    """
    lead = positions(logits, axis)
    flat = logits.movedim(axis, -1).reshape(math.prod(lead), logits.shape[axis])
    if mask is not None:
        expect_shape("mask", mask, lead)
        flat = flat[mask.reshape(-1).to(flat.device) != 0]
    return precise(flat)


def precise(values: Tensor) -> Tensor:
    """The values in single precision or better: squares and sums of halves overflow."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def positions(logits: Tensor, axis: int = -1) -> tuple[int, ...]:
    """The shape without `axis`. Raises StageError when there is no such axis."""
    if not -logits.ndim <= axis < logits.ndim:
        raise StageError(f"logits {tuple(logits.shape)} have no axis {axis}", fix="Set axis to that of the classes")
    return tuple(size for i, size in enumerate(logits.shape) if i != axis % logits.ndim)


def expect_shape(name: str, found: Tensor, shape: Sequence[int]) -> None:
    """Raise StageError when `found` has another shape than `shape`: broadcasting would hide a mistake."""
    if tuple(found.shape) != tuple(shape):
        raise StageError(f"the {name} has the shape {tuple(found.shape)}", expected=f"{tuple(shape)}")


def divergence(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over rows; 0 for no rows.

    Args:
        student, teacher: logits (R, classes).
        temperature: T, above 0.
    """
    log_student, log_teacher = (F.log_softmax(z / temperature, dim=-1) for z in (student, teacher))
    # "mean" would divide by rows times classes, "batchmean" by zero where no row counts.
    total = F.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    return total * (temperature**2 / max(len(student), 1))


def soft_loss(
    student: Tensor, teacher: Tensor, temperature: float, *, axis: int = -1, mask: Tensor | None = None
) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), summed over classes, mean over the positions that count.

    The factor T^2 keeps the gradient's size the same at every temperature (section 2 of the paper), so that
    `hard_weight` means the same at T = 1 and at T = 10.

    Args:
        student, teacher: logits of one shape, two classes or more.
        temperature: T, above 0; 1 leaves the teacher's distribution as it is, higher shows more of its small values.
        axis, mask: see `rows`.

    Raises:
        StageError: shapes do not fit, or there are not two classes.
    """
    return divergence(*_pair(student, teacher, axis, mask), temperature)


def decoupled_loss(
    student: Tensor,
    teacher: Tensor,
    targets: Tensor,
    temperature: float,
    *,
    target_weight: float = 1.0,
    rest_weight: float = 8.0,
    axis: int = -1,
    mask: Tensor | None = None,
) -> Tensor:
    """DKD: the soft loss in its two parts, the target against the rest and the rest among itself, weighted freely.

    The soft loss weighs the second part by the teacher's probability of the rest, and so learns least where the
    teacher is sure. Both parts carry T^2, and their gradients keep their size at every temperature.

    Args:
        student, teacher: logits of one shape.
        targets: class numbers, the shape of the logits without `axis`; those outside 0..classes - 1, such as -100, do
            not count.
        temperature: T, above 0; 4 in the paper.
        target_weight, rest_weight: alpha and beta of the paper, 0 or more.
        axis, mask: see `rows`.

    Raises:
        StageError: shapes do not fit, or there are not two classes.

    Reference:
        Zhao, Cui, Song, Qiu and Liang: Decoupled Knowledge Distillation, 2022, 2203.08679, equation 7.
    """
    expect_shape("targets", targets, positions(student, axis))
    counted = (targets >= 0) & (targets < student.shape[axis])
    if mask is not None:
        expect_shape("mask", mask, targets.shape)
        counted = counted & (mask.to(targets.device) != 0)
    student, teacher = _pair(student, teacher, axis, counted)
    chosen = targets[counted].long().to(student.device)
    (target, rest), (true_target, true_rest) = (_decouple(z / temperature, chosen) for z in (student, teacher))
    loss = target_weight * divergence(target, true_target) + rest_weight * divergence(rest, true_rest)
    return loss * temperature**2


def dist_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    *,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
    axis: int = -1,
    mask: Tensor | None = None,
) -> Tensor:
    """DIST: 1 - Pearson's correlation of the probabilities, over the classes of a position and over the positions of a
    class; it asks for the teacher's relations, not for its values, which suits teachers far stronger than the student.

    Times T^2, as in the authors' code since it has a temperature (their equations and first code have none), so that
    their weights apply. A correlation does not see scale, hence its gradient does not fall with T as that of a KL does,
    and T^2 makes it grow as T^2: lower both weights where T is raised. A vector that does not vary has the correlation
    0: so does every class in a batch of one position.

    Args:
        student, teacher: logits of one shape.
        temperature: T, above 0; the paper has 1 on ImageNet and 4 on CIFAR-100.
        inter_weight: beta of the paper, of the classes of a position; 2 on CIFAR-100.
        intra_weight: gamma, of the positions of a class, which are those of this batch; 2 on CIFAR-100.
        axis, mask: see `rows`.

    Raises:
        StageError: shapes do not fit, or there are not two classes.

    Reference:
        Huang, You, Wang, Qian and Xu: Knowledge Distillation from A Stronger Teacher, 2022, 2205.10536, L_inter
        and L_intra.
    """
    student, teacher = (F.softmax(z / temperature, dim=-1) for z in _pair(student, teacher, axis, mask))
    if not len(student):
        return student.sum()
    inter = 1 - (_standard(student, 1) * _standard(teacher, 1)).sum(1).mean()
    intra = 1 - (_standard(student, 0) * _standard(teacher, 0)).sum(0).mean()
    return (inter_weight * inter + intra_weight * intra) * temperature**2


def averaged(
    logits: Sequence[Tensor],
    weights: Sequence[float],
    *,
    how: Literal["logits", "probabilities"],
    temperature: float,
    axis: int = -1,
) -> Tensor:
    """The logits of several teachers as those of one, in their shape.

    Args:
        logits: one tensor a teacher, all of one shape.
        weights: one a teacher, 0 or more, not all 0; only their ratios count.
        how: "logits" gives their mean, "probabilities" gives logits whose softmax at T is the mean of the softmax at T.
        temperature: T, above 0; it matters for probabilities alone, and must be that of the loss.
        axis: that of the classes.

    Raises:
        StageError: no teachers, shapes that differ, or weights that do not fit.
    """
    if not logits or len(weights) != len(logits) or min(weights) < 0 or not sum(weights) > 0:
        problem = f"{len(logits)} teachers have the weights {list(weights)}"
        raise StageError(problem, expected="one each, 0 or more, not all 0")
    for other in logits[1:]:
        expect_shape("other teacher's logits", other, logits[0].shape)
    stacked = torch.stack([precise(z) for z in logits])
    share = stacked.new_tensor(weights).div(sum(weights)).view(-1, *(1 for _ in logits[0].shape))
    if how == "logits":
        return (share * stacked).sum(0)
    stacked = F.log_softmax(stacked / temperature, dim=axis % logits[0].ndim + 1)
    return temperature * (stacked + share.log()).logsumexp(0)


def _pair(student: Tensor, teacher: Tensor, axis: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The rows of both. Refuses a single class, on which every softmax is 1 and every loss 0."""
    expect_shape("teacher's logits", teacher, student.shape)
    student_rows, teacher_rows = rows(student, axis, mask), rows(teacher, axis, mask)
    if student_rows.shape[1] < 2:
        problem = f"logits {tuple(student.shape)} have {student_rows.shape[1]} class on axis {axis}"
        fix = "Set axis to that of the classes; a single logit has no distribution to learn"
        raise StageError(problem, expected="two or more", fix=fix)
    return student_rows, teacher_rows


def _decouple(scaled: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (R, 2) of the target and of all the rest together, and (R, classes - 1) of the rest."""
    is_target = F.one_hot(targets, scaled.shape[1]).bool()
    rest = scaled[~is_target].reshape(len(scaled), scaled.shape[1] - 1)
    return torch.stack([scaled[is_target], rest.logsumexp(1)], 1), rest


def _standard(values: Tensor, axis: int) -> Tensor:
    """Of mean 0 and length 1 along `axis`, or 0 where they vary by no more than rounding does."""
    centred = values - values.mean(axis, keepdim=True)
    length: Tensor = torch.linalg.vector_norm(centred, dim=axis, keepdim=True)
    noise = 8 * torch.finfo(values.dtype).eps * torch.linalg.vector_norm(values, dim=axis, keepdim=True)
    return centred / length.where(length > noise, math.inf)
