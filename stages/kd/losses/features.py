"""Distillation of hidden layers (Romero et al.: FitNets, 2015, 1412.6550)."""

from torch import Tensor, nn
from torch.nn import functional as F

from stages.kd.losses.logits import expect_shape, rows

POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)


def hint_loss(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None, normalize: bool = False) -> Tensor:
    """Mean squared error of features, over channels and the positions that count; 0 where none does.

    The paper halves the sum of squares; the mean keeps one weight good for layers of every size.

    Args:
        student, teacher: features of one shape, after any adapter. Channels are axis 1 of four axes or more, as of
            images (N, C, H, W), and the last axis of fewer, as of sequences (N, L, D).
        mask: the features' shape without the channels, such as (N, L), bool or 0 and 1.
        normalize: divide each position's channels by their L2 norm first, so that only the direction counts. The loss
            is then at most 4 / channels.

    Raises:
        StageError: shapes do not fit.

    Reference:
        Romero, Ballas, Kahou, Chassang, Gatta and Bengio: FitNets: Hints for Thin Deep Nets, 2015, 1412.6550,
        equation 3.
    """
    expect_shape("teacher's features", teacher, student.shape)
    axis = 1 if student.ndim >= 4 else -1
    student, teacher = (rows(features, axis, mask) for features in (student, teacher))
    if normalize:
        student, teacher = (F.normalize(features, dim=-1) for features in (student, teacher))
    return F.mse_loss(student, teacher, reduction="sum") / max(student.numel(), 1)


def same_places(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both (N, C, *spatial) with the smaller number of places on each spatial axis, by averages over cells."""
    if student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = tuple(min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True))
    pool = POOLS[len(size) - 1](size)
    return pool(student), pool(teacher)
