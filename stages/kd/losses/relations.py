"""Distillation of relations: between the examples of a batch (RKD), and between positions of a sequence (MiniLM)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import StageError
from stages.kd.losses.attention import attention_scores
from stages.kd.losses.logits import divergence, expect_shape, precise, rows


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the distances between examples, each in units of their mean; mean over pairs.

    The two widths may differ. It sees pairs within the batch alone: take 16 examples or more. The paper gives it a
    weight of 25 beside the labels.

    Args:
        student: (N, D) or more axes, which are flattened; 2 examples or more.
        teacher: (N, D2) likewise.

    Raises:
        StageError: the numbers of examples differ, or there are fewer than two.

    Reference:
        Park, Kim, Lu and Cho: Relational Knowledge Distillation, 2019, 1904.05068, section 3.2.1.
    """
    student, teacher = _vectors(student, teacher, 2)
    return F.huber_loss(_distances(student), _distances(teacher))


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the cosines of the angles that triples of examples form; mean over triples.

    The mean is over triples of distinct examples, as the paper defines them; the authors' code also counts those with
    an example twice, which are 0. Memory grows as N^3 + N^2 D. The paper gives it a weight of 50.

    Args:
        student: (N, D) or more axes, which are flattened; 3 examples or more.
        teacher: (N, D2) likewise.

    Raises:
        StageError: the numbers of examples differ, or there are fewer than three.

    Reference:
        Park, Kim, Lu and Cho: Relational Knowledge Distillation, 2019, 1904.05068, section 3.2.2.
    """
    student, teacher = _vectors(student, teacher, 3)
    count = len(student)
    # i = vertex or k = vertex among them give 0 on both sides.
    total = F.huber_loss(_cosines(student), _cosines(teacher), reduction="sum")
    return total / (count * (count - 1) * (count - 2) / 2)


def attention_relation_loss(student: Tensor, teacher: Tensor, heads: int, *, mask: Tensor | None = None) -> Tensor:
    """KL(teacher || student) of relations softmax(X X^T / sqrt(d_r)) between positions; mean over heads and queries.

    X is the queries, keys or values of one layer; MiniLMv2 adds the losses of all three, MiniLM that of the values to
    one of attention. Widths and numbers of heads may differ, since both are split anew into `heads` of width d_r.

    Args:
        student: (N, H, L, d).
        teacher: (N, H2, L, d2).
        heads: relation heads, a divisor of H * d and of H2 * d2.
        mask: (N, L), bool or 0 and 1: other positions are neither asked nor seen.

    Raises:
        StageError: the examples or lengths differ, `heads` is no divisor, or the mask does not fit.

    Reference:
        Wang et al.: MiniLMv2: Multi-Head Self-Attention Relation Distillation, 2020, 2012.15828; for the values alone
        Wang et al.: MiniLM: Deep Self-Attention Distillation, 2020, 2002.10957, section 3.2.
    """
    if student.ndim != 4 or teacher.ndim != 4 or student.shape[::2] != teacher.shape[::2]:
        problem = f"the student gives {tuple(student.shape)}, the teacher {tuple(teacher.shape)}"
        raise StageError(problem, expected="(examples, heads, positions, width) with as many examples and positions")
    return _scores_divergence(_relations(student, heads), _relations(teacher, heads), mask)


def attention_divergence(student: Sequence[Tensor], teacher: Sequence[Tensor], *, mask: Tensor | None = None) -> Tensor:
    """KL(teacher || student) of what each position attends to; mean over heads and positions that count.

    Args:
        student, teacher: queries and keys (N, heads, L, d), and what follows them is not looked at; d may differ.
        mask: (N, L), bool or 0 and 1: other positions are neither asked nor seen.

    Reference:
        Wang et al.: MiniLM: Deep Self-Attention Distillation, 2020, 2002.10957, equation 6.
    """
    return _scores_divergence(attention_scores(*student[:2]), attention_scores(*teacher[:2]), mask)


def _vectors(student: Tensor, teacher: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """(N, D) and (N, D2), in single precision or better."""
    if len(student) != len(teacher) or len(student) < least:
        problem = f"the student gives {len(student)} examples, the teacher {len(teacher)}"
        fix = "Raise batch_size, a process's share of which must hold so many"
        raise StageError(problem, expected=f"as many, and {least} or more", fix=fix)
    student, teacher = (precise(x.flatten(1)) for x in (student, teacher))
    return student, teacher


def _distances(vectors: Tensor) -> Tensor:
    """(pairs,), of mean 1; 0 where all examples are one point."""
    distances = torch.pdist(vectors)
    return _over(distances, distances.mean())


def _cosines(vectors: Tensor) -> Tensor:
    """(N, pairs): at each vertex, the cosine between the directions to a pair; 0 where there is no direction."""
    edges = vectors[None, :] - vectors[:, None]
    directions = _over(edges, torch.linalg.vector_norm(edges, dim=2, keepdim=True))
    first, second = torch.triu_indices(len(vectors), len(vectors), 1, device=vectors.device)
    with torch.autocast(vectors.device.type, enabled=False):
        products = directions @ directions.transpose(1, 2)
    return products[:, first, second]


def _over(values: Tensor, length: Tensor) -> Tensor:
    """values / length, and 0 with gradient 0 where the length is 0."""
    return values / length.where(length > 0, math.inf)


def _scores_divergence(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    """Of the softmax of scores (N, heads, L, L), with masked keys out of its reach and without masked queries."""
    if mask is None:
        return divergence(rows(student), rows(teacher))
    expect_shape("mask", mask, student.shape[::2])
    counted = mask.to(student.device) != 0
    queries = counted[:, None, :].expand(student.shape[:3])
    least = torch.finfo(student.dtype).min  # -inf - -inf would be NaN
    student, teacher = (scores.masked_fill(~counted[:, None, None, :], least) for scores in (student, teacher))
    return divergence(rows(student, mask=queries), rows(teacher, mask=queries))


def _relations(vectors: Tensor, heads: int) -> Tensor:
    """(N, heads, L, L): scaled products of (N, H, L, d) split anew."""
    joined = precise(vectors).transpose(1, 2).flatten(2)
    if heads < 1 or joined.shape[2] % heads:
        problem = f"{heads} relation heads do not divide a width of {joined.shape[2]}"
        raise StageError(problem, expected=f"a divisor of {joined.shape[2]}")
    split = joined.reshape(*joined.shape[:2], heads, -1).transpose(1, 2)
    return attention_scores(split, split)
