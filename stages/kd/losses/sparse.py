"""The soft loss for large vocabularies: of a teacher only the k largest classes are kept, and all others as one.

What is lost is how the teacher spreads the rest over its classes: the loss is the KL divergence between coarser
distributions, hence never above the full one, and equal to it where k is the number of classes.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import StageError
from stages.kd.losses.logits import expect_shape, positions, rows

ROWS_AT_ONCE = 64  # sorting takes several times the memory of what is sorted


class Sparse(NamedTuple):
    """A teacher's softmax at a temperature, without what is small.

    Args:
        values: (..., k), logarithms of the k largest probabilities, in falling order.
        indices: (..., k), int32, their classes.
        rest: (...), logarithm of what all other classes have together; -inf where that is nothing.
    """

    values: Tensor
    indices: Tensor
    rest: Tensor


@torch.no_grad()
def sparsify(logits: Tensor, k: int, temperature: float, *, axis: int = -1) -> Sparse:
    """The k largest probabilities of softmax(logits / T) and the rest, with the class axis last; without gradients.

    Args:
        logits: any shape.
        k: 1 to the number of classes.
        temperature: T, above 0; the loss must have the same.
        axis: that of the classes.

    Raises:
        StageError: k is out of range, or there is no such axis.
    """
    flat = rows(logits, axis)
    if not 1 <= k <= flat.shape[1]:
        raise StageError(f"k is {k}", expected=f"1 to {flat.shape[1]}, the number of classes")
    log_p = F.log_softmax(flat / temperature, dim=1)
    values, indices = log_p.topk(k, dim=1)
    # From the small classes themselves: 1 - sum(kept) would round a small rest to 0.
    rest = log_p.scatter_(1, indices, -math.inf).logsumexp(1)
    lead = positions(logits, axis)
    return Sparse(values.reshape(*lead, k), indices.int().reshape(*lead, k), rest.reshape(lead))


@torch.no_grad()
def k_for_mass(
    logits: Tensor, mass: float = 0.999, temperature: float = 1.0, *, axis: int = -1, mask: Tensor | None = None
) -> int:
    """The smallest k for which the k largest probabilities of a row sum to `mass` or more in the mean over the rows.

    A single row may keep less: rows that are spread out are outweighed by those that are sure.

    Args:
        logits: a sample of a teacher's, any shape.
        mass: above 0, at most 1.
        temperature: T, above 0, of the loss: the higher, the more classes it takes.
        axis, mask: see `stages.kd.losses.logits.rows`.

    Raises:
        StageError: no row counts, or shapes do not fit.
    """
    flat = rows(logits, axis, mask)
    if not len(flat):
        raise StageError("there are no logits to count the mass of", expected="one row or more")
    largest = flat.new_zeros(flat.shape[1], dtype=torch.float64)
    for some in torch.split(flat, ROWS_AT_ONCE):
        largest += F.softmax(some / temperature, dim=1).sort(dim=1, descending=True).values.double().sum(0)
    cumulative_mass = (largest / len(flat)).cumsum(0)
    return min(int((cumulative_mass < mass).sum()) + 1, flat.shape[1])


def sparse_soft_loss(
    student: Tensor, sparse: Sparse, temperature: float, *, axis: int = -1, mask: Tensor | None = None
) -> Tensor:
    """T^2 * KL(teacher || student) at T over k + 1 outcomes, the k classes and any other; mean over what counts.

    Never above `soft_loss`, and equal to it for k = classes; T^2 does here what it does there. Beside the student's
    logits it holds tensors of their size and smaller ones.

    Args:
        student: logits of any shape.
        sparse: of a teacher with the same classes, by `sparsify` at the same temperature: (..., k) for the student's
            shape without `axis`; half precision is welcome.
        temperature: T, above 0.
        axis, mask: see `stages.kd.losses.logits.rows`.

    Raises:
        StageError: shapes do not fit.
    """
    scaled = rows(student, axis, mask) / temperature
    expect_shape("teacher's remaining mass", sparse.rest, positions(student, axis))
    indices = _selected(sparse.indices, mask).long()
    outcomes = torch.cat([_selected(sparse.values, mask), _selected(sparse.rest.unsqueeze(-1), mask)], dim=1)
    log_p = outcomes.to(scaled.dtype)
    # Of the other classes themselves, for the reason given in `sparsify`.
    others = scaled.scatter(1, indices, -math.inf).logsumexp(1, keepdim=True)
    log_q = F.log_softmax(torch.cat([scaled.gather(1, indices), others], dim=1), dim=1)
    gap = (log_p - log_q).masked_fill(log_p == -math.inf, 0)  # 0 * log 0 = 0
    return (log_p.exp() * gap).sum() * (temperature**2 / max(len(scaled), 1))


def _selected(values: Tensor, mask: Tensor | None) -> Tensor:
    """(..., k) as (R, k): the rows that count."""
    flat = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])
    return flat if mask is None else flat[mask.reshape(-1).to(flat.device) != 0]
