"""Distillation of attention: activation maps of CNNs, and attention scores of transformers."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import StageError
from stages.kd.losses.features import same_places
from stages.kd.losses.logits import expect_shape, precise


def activation_transfer_loss(student: Tensor, teacher: Tensor, power: float = 2) -> Tensor:
    """Mean squared difference of two maps of how strongly the channels answer at each position.

    A map is the sum of |channel| ^ power at each position, divided by its L2 norm over all positions.
    As in the authors' code it is a mean over positions, for which their weight of about 1000 is meant. Channels may
    differ. Where spatial sizes differ, the larger map is averaged down to the smaller, axis by axis, before its norm is
    taken.

    Args:
        student: (N, C, *spatial).
        teacher: (N, C2, *spatial2), as many axes.
        power: 1 or more; the higher, the more the strongest channel decides.

    Raises:
        StageError: the number of examples or of axes differs, or there is no spatial axis, or more than three.

    Reference:
        Zagoruyko and Komodakis: Paying More Attention to Attention, 2017, 1612.03928, section 3.1
        and equation 2.
    """
    if student.ndim != teacher.ndim or len(student) != len(teacher):
        problem = f"the student's features are {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}"
        raise StageError(problem, expected="as many examples and axes", fix="Name layers of the same kind")
    energies = same_places(_energy(student, power), _energy(teacher, power))
    student, teacher = (F.normalize(energy.flatten(1), dim=1) for energy in energies)
    return F.mse_loss(student, teacher)


def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """(N, heads, L, L2): Q K^T / sqrt(d), what the softmax of attention is taken of.

    Args:
        query: (N, heads, L, d).
        key: (N, heads, L2, d).
    """
    query, key = precise(query), precise(key)
    with torch.autocast(query.device.type, enabled=False):
        return query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])


def attention_loss(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of attention scores before the softmax, over heads and pairs of positions that both count.

    Args:
        student, teacher: (N, heads, L, L), as `attention_scores` gives; what padding holds, -inf too, is not looked at.
        mask: (N, L), bool or 0 and 1; None counts every position.

    Raises:
        StageError: heads or other sizes differ, or the mask does not fit.

    Reference:
        Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding, 2020, 1909.10351, equation 7.
    """
    if student.ndim == teacher.ndim == 4 and student.shape[1] != teacher.shape[1]:
        problem = f"the student has {student.shape[1]} attention heads, the teacher {teacher.shape[1]}"
        fix = "Use relations of self-attention, which regroup heads, or a student with as many heads"
        raise StageError(problem, expected="as many", fix=fix)
    expect_shape("teacher's attention", teacher, student.shape)
    if mask is not None:
        expect_shape("mask", mask, (student.shape[0], student.shape[-1]))
        counted = mask.to(student.device) != 0
        pairs = (counted[:, None, :, None] & counted[:, None, None, :]).expand_as(student)
        student, teacher = student[pairs], teacher[pairs]
    return F.mse_loss(precise(student), precise(teacher), reduction="sum") / max(student.numel(), 1)


def _energy(features: Tensor, power: float) -> Tensor:
    """(N, 1, *spatial): sum over channels of |features| ^ power."""
    if not 3 <= features.ndim <= 5:
        problem = f"features {tuple(features.shape)} have no activation map"
        expected = "(N, C, *spatial) with one to three spatial axes"
        raise StageError(problem, expected=expected, fix="Name a layer before pooling and flattening")
    return precise(features).abs().pow(power).sum(1, keepdim=True)
