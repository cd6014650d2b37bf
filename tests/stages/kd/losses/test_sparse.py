"""The loss of a teacher's top k against sums over outcomes, against the full loss, and at the size that it is for."""

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.errors import StageError
from stages.kd.losses.logits import soft_loss
from stages.kd.losses.sparse import Sparse, k_for_mass, sparse_soft_loss, sparsify
from tests.draws import normal

logits = partial(normal, scale=2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_sparse_loss_is_the_divergence_over_k_and_one_outcomes(k: int, temperature: float) -> None:
    student, teacher = logits(5, 9), logits(5, 9, seed=1)
    p, q = (softmax(z.numpy() / temperature, axis=1) for z in (teacher, student))
    expected = 0.0
    for p_row, q_row in zip(p, q, strict=True):
        top = np.argsort(-p_row)[:k]
        expected += rel_entr(p_row[top], q_row[top]).sum() + rel_entr(1 - p_row[top].sum(), 1 - q_row[top].sum())
    found = sparse_soft_loss(student, sparsify(teacher, k, temperature), temperature)
    assert float(found) == pytest.approx(temperature**2 * expected / 5, rel=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 6.0])
def test_more_classes_come_closer_to_the_full_loss_from_below_and_all_reach_it(temperature: float) -> None:
    student, teacher = logits(2, 6, 30), logits(2, 6, 30, seed=1)
    found = [float(sparse_soft_loss(student, sparsify(teacher, k, temperature), temperature)) for k in range(1, 31)]
    full = float(soft_loss(student, teacher, temperature))
    assert all(more >= fewer - 1e-12 for fewer, more in pairwise(found))
    assert found[0] < 0.9 * full
    assert found[-1] == pytest.approx(full, rel=1e-12)


def test_with_all_classes_the_gradient_is_that_of_the_full_loss_too() -> None:
    student, teacher = logits(4, 6).requires_grad_(), logits(4, 6, seed=1)
    (found,) = torch.autograd.grad(sparse_soft_loss(student, sparsify(teacher, 6, 2.0), 2.0), student)
    (expected,) = torch.autograd.grad(soft_loss(student, teacher, 2.0), student)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("k", [1, 4, 5])
def test_sparse_gradients_are_those_of_finite_differences(k: int) -> None:
    student, kept = logits(3, 5).requires_grad_(), sparsify(logits(3, 5, seed=1), k, 2.0)
    assert torch.autograd.gradcheck(lambda z: sparse_soft_loss(z, kept, 2.0), (student,))


def test_what_is_kept() -> None:
    kept = sparsify(logits(2, 7, 3), 4, 2.0, axis=1)
    p = softmax(logits(2, 7, 3).numpy() / 2, axis=1)
    assert kept.values.shape == kept.indices.shape == (2, 3, 4)
    assert (kept.indices.dtype, kept.rest.shape) == (torch.int32, (2, 3))
    expected = -np.sort(-np.moveaxis(p, 1, -1), axis=-1)
    np.testing.assert_allclose(kept.values.exp().numpy(), expected[..., :4], rtol=1e-12)
    np.testing.assert_allclose(kept.rest.exp().numpy(), expected[..., 4:].sum(-1), rtol=1e-12)
    assert sparsify(logits(2, 7), 7, 1.0).rest.tolist() == [-np.inf, -np.inf]


def test_a_tiny_rest_keeps_its_size_in_single_precision() -> None:
    kept = sparsify(torch.tensor([[50.0, 40.0, 0.0, -1.0]]), 2, 1.0)
    assert float(kept.rest) == pytest.approx(-50 + np.log1p(np.exp(-1)) - np.log1p(np.exp(-10)), rel=1e-5)
    student = torch.tensor([[0.0, 90.0, -90.0, -90.0]], requires_grad=True)
    loss = sparse_soft_loss(student, kept, 1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(90, rel=1e-3)
    assert bool(torch.isfinite(student.grad).all())  # type: ignore[arg-type]


def test_a_teacher_kept_in_half_precision_gives_nearly_the_same_loss() -> None:
    student, kept = logits(8, 50), sparsify(logits(8, 50, seed=1), 10, 2.0)
    half = Sparse(kept.values.half(), kept.indices, kept.rest.half())
    exact = float(sparse_soft_loss(student, kept, 2.0))
    assert float(sparse_soft_loss(student, half, 2.0)) == pytest.approx(exact, rel=0.01)


def test_what_does_not_fit_is_refused() -> None:
    for k in (0, 6):
        with pytest.raises(StageError, match=f"k is {k}; expected 1 to 5"):
            sparsify(logits(2, 5), k, 1.0)
    with pytest.raises(StageError, match=r"remaining mass has the shape \(2,\); expected \(3,\)"):
        sparse_soft_loss(logits(3, 5), sparsify(logits(2, 5), 2, 1.0), 1.0)
    with pytest.raises(StageError, match="no logits to count"):
        k_for_mass(logits(2, 5), temperature=1.0, mask=torch.zeros(2))


@pytest.mark.parametrize("mass", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_k_is_the_smallest_that_keeps_the_mass_on_average(mass: float, temperature: float) -> None:
    teacher = logits(150, 40)
    k = k_for_mass(teacher, mass, temperature=temperature)

    def kept(k: int) -> float:
        return 1 - float(sparsify(teacher, k, temperature).rest.exp().mean()) if k else 0.0

    assert kept(k - 1) < mass <= kept(k)


def test_k_by_hand() -> None:
    certain, even = torch.tensor([50.0, 0, 0, 0]), torch.zeros(4)
    assert k_for_mass(torch.stack([certain, certain]), temperature=1.0) == 1
    assert k_for_mass(torch.stack([certain, even]), 0.7, temperature=1.0) == 2  # (1 + 0.25) / 2, then (1 + 0.5) / 2
    assert k_for_mass(even, 1.0, temperature=1.0) == 4
    two = torch.stack([certain, even])
    assert k_for_mass(two, 0.7, temperature=1.0, mask=torch.tensor([0, 1])) == 3
    assert k_for_mass(two.T, 0.7, temperature=1.0, axis=0) == 2


class Largest(TorchDispatchMode):
    """Notes the number of bytes of the largest tensor that any operation gives."""

    found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor):
                self.found = max(self.found, value.nbytes)
        return out


def test_a_hundred_thousand_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(2, 8, 100_000, generator=generator) for _ in range(2))
    kept = sparsify(teacher, 256, 2.0)
    mask = torch.arange(8)[None] < torch.tensor([8, 5])[:, None]
    student.requires_grad_()
    with Largest() as largest:
        loss = sparse_soft_loss(student, kept, 2.0, mask=mask)
        loss.backward()
    assert largest.found <= student.nbytes
    exact = sparse_soft_loss(student.detach().double(), sparsify(teacher.double(), 256, 2.0), 2.0, mask=mask)
    assert float(loss.detach()) == pytest.approx(float(exact), rel=1e-4)
    assert 0 < float(exact) < float(soft_loss(student.detach().double(), teacher.double(), 2.0, mask=mask))
