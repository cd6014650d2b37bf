"""The best factors of a weight for its ranks, in closed form where there is one, and the energy that each rank keeps.

The energy of a weight W is |W root|^2, in the metric of a root of the second moment root root^T of what it reads: the
identity for the weights as they are. Of a linear layer that is the energy of its outputs on the data, without the bias;
for a convolution the moment is that of its channels at one place, as if places did not depend on each other.

References:
    Two factors: C. Eckart, G. Young, "The approximation of one matrix by another of lower rank", 1936; in the metric of
    the inputs X. Zhang, J. Zou, K. He, J. Sun, "Accelerating Very Deep Convolutional Networks for Classification and
    Detection", 2015, arXiv:1505.06798, section 3.1, whose optimum SVD-LLM (arXiv:2403.07378) reaches by whitening.
    Over the axes of a kernel: C. Tai, T. Xiao, Y. Zhang, X. Wang, W. E, "Convolutional neural networks with low-rank
    regularization", 2015, arXiv:1511.06067, theorem 1.
    Three factors: Y. Kim, E. Park, S. Yoo, T. Choi, L. Yang, D. Shin, "Compression of Deep Convolutional Neural
    Networks for Fast and Low Power Mobile Applications", 2015, arXiv:1511.06530, section 3.1 (Tucker-2); by HOOI of
    L. De Lathauwer, B. De Moor, J. Vandewalle, "On the best rank-1 and rank-(R1, R2, ..., RN) approximation of
    higher-order tensors", 2000.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stages.prune.ranks.factors import halves, matrix

ITERATIONS = 10
LEAST = 1e-300
"""In place of no energy at all, of which nothing is lost."""


def kept(weight: Tensor, root: Tensor | None, count: int) -> Tensor:
    """The share of the energy that ranks keep, 0 to 1: (ranks,), or for two of them (inner ranks, outer ranks).

    The last is exact for truncated factors, of which `best` begins; it may keep a little more.

    Args:
        weight: (out, in, *kernel).
        root: (in, in), None for the identity.
        count: of the ranks, 1 or 2.
    """
    if count == 1:
        energies = principal(_in_metric(matrix(weight.double()), _over_kernel(root, weight)))[1]
        return _share(energies.cumsum(0), energies.sum())
    white = _white(weight, root)
    outer, inner = principal(white.flatten(1))[0], principal(white.movedim(1, 0).flatten(1))[0]
    core = torch.einsum("oik,or,is->srk", white, outer, inner).square().sum(-1)
    return _share(core.cumsum(0).cumsum(1), white.square().sum())


def best(weight: Tensor, root: Tensor | None, ranks: Sequence[int]) -> list[Tensor]:
    """The weights of the factors, see `fill`: of least error in the metric for one rank, near it for two."""
    whole = weight.double()
    if len(ranks) == 1:
        return halves(weight, *_split(matrix(whole), _over_kernel(root, weight), ranks[0]))
    inner, outer = ranks
    basis = _outer_basis(_white(weight, root), inner, outer)
    rest = torch.einsum("oik,or->rki", whole.flatten(2), basis)
    core, first = _split(rest.flatten(0, 1), root, inner)
    last, core = _balanced(basis, core.reshape(outer, -1))
    kernel = core.reshape(outer, -1, inner).movedim(-1, 1).reshape(outer, inner, *weight.shape[2:])
    ones = [1] * (weight.ndim - 2)
    return [first.reshape(*first.shape, *ones), kernel, last.reshape(*last.shape, *ones)]


def energy(weight: Tensor, weights: Sequence[Tensor], root: Tensor | None) -> float:
    """The share of a weight's energy that its factors keep, 0 to 1."""
    first, last = (
        one.double().flatten(2) if one.ndim > 2 else one.double()[..., None] for one in weights[:: len(weights) - 1]
    )
    if len(weights) == 2:
        product = torch.einsum("orx,riy->oiyx", last, first)
    else:
        product = torch.einsum("orx,rsk,siy->oikxy", last, weights[1].double().flatten(2), first)
    lost = _white(weight - product.reshape(weight.shape), root).square().sum()
    return 1 - float(lost / _white(weight, root).square().sum().clamp_min(LEAST))


def exact(weight: Tensor, count: int) -> list[Tensor]:
    """Factors that give the same as the weight, whatever it is: with identities."""
    if count == 1:
        left = matrix(weight)
        return halves(weight, left, torch.eye(left.shape[1]).to(left))
    ends = [torch.eye(size).to(weight).view(size, size, *[1] * (weight.ndim - 2)) for size in weight.shape[1::-1]]
    return [ends[0], weight, ends[1]]


def principal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors, as columns, and the squares of the singular values (min(shape),), the largest first."""
    frame = None
    if rows.shape[0] > rows.shape[1]:
        frame, rows = torch.linalg.qr(rows)
    energies, vectors = torch.linalg.eigh(rows @ rows.mT)
    vectors = vectors.flip(1)
    return vectors if frame is None else frame @ vectors, energies.flip(0).clamp_min(0)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    return 1 - (whole - part).clamp_min(0) / whole.clamp_min(LEAST)


def _split(whole: Tensor, root: Tensor | None, rank: int) -> tuple[Tensor, Tensor]:
    """(a, b) -> (a, rank) and (rank, b): the outputs projected on their principal directions, without an inverse."""
    vectors = principal(_in_metric(whole, root))[0][:, :rank]
    return _balanced(vectors, vectors.mT @ whole)


def _balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with each column and row of one norm, which suits integers and training."""
    norms = [left.norm(dim=0), right.norm(dim=1)]
    scale = (norms[1].clamp_min(1e-30) / norms[0].clamp_min(1e-30)).sqrt()
    return left * scale, right / scale[:, None]


def _outer_basis(white: Tensor, inner: int, outer: int) -> Tensor:
    """(out, in, kernel) -> (out, outer): the directions of the outputs beside as good ones of the inputs (HOOI)."""
    basis = principal(white.flatten(1))[0][:, :outer]
    for _ in range(ITERATIONS):
        projected = torch.einsum("oik,or->irk", white, basis)
        inputs = principal(projected.flatten(1))[0][:, :inner]
        basis = principal(torch.einsum("oik,is->osk", white, inputs).flatten(1))[0][:, :outer]
    return basis


def _white(weight: Tensor, root: Tensor | None) -> Tensor:
    flat = weight.double().reshape(*weight.shape[:2], -1)
    return flat if root is None else torch.einsum("oik,ij->ojk", flat, root)


def _in_metric(rows: Tensor, root: Tensor | None) -> Tensor:
    return rows if root is None else rows @ root


def _over_kernel(root: Tensor | None, weight: Tensor) -> Tensor | None:
    """The metric of what the first of two factors reads: the same at each place of its kernel."""
    if root is None or weight.ndim == 2:
        return root
    # contiguous: see findings/kron_of_transposed.sh
    return torch.kron(root.contiguous(), torch.eye(weight.shape[2], dtype=root.dtype))
