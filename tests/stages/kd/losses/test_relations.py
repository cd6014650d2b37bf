"""Relations between examples and between positions, pair by pair."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.special import huber, rel_entr, softmax
from torch import Tensor

from stages.kd.losses.relations import angle_loss, attention_relation_loss, distance_loss
from tests.draws import normal as vectors


@pytest.mark.parametrize(("count", "scale"), [(2, 1), (5, 1), (9, 1), (9, 50)])
def test_distance_loss_compares_distances_in_units_of_their_mean(count: int, scale: float) -> None:
    student, teacher = vectors(count, 4), vectors(count, 7, seed=1)
    student[0] += scale  # far away: beyond the bend of Huber's loss
    a, b = (pdist(x.numpy()) for x in (student, teacher))
    expected = huber(1, a / a.mean() - b / b.mean()).mean()
    assert float(distance_loss(student, teacher)) == pytest.approx(expected, rel=1e-10, abs=1e-15)


def cosine(x: Tensor, i: int, j: int, k: int) -> float:
    """Of the angle at j."""
    a, b = (x[i] - x[j]).numpy(), (x[k] - x[j]).numpy()
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("count", [3, 4, 7])
def test_angle_loss_compares_the_angles_of_triples(count: int) -> None:
    student, teacher = vectors(count, 4), vectors(count, 7, seed=1)
    triples = itertools.permutations(range(count), 3)
    expected = np.mean([huber(1, cosine(student, *t) - cosine(teacher, *t)) for t in triples])
    assert float(angle_loss(student, teacher)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_relations_do_not_see_where_how_large_and_how_turned_the_examples_lie(loss: Callable[..., Tensor]) -> None:
    student, teacher = vectors(6, 4), vectors(6, 7, seed=1)
    turn = torch.linalg.qr(vectors(4, 4, seed=2)).Q
    found = float(loss(student, teacher))
    assert found > 0.01
    assert float(loss(3 * student @ turn + 5, teacher)) == pytest.approx(found, rel=1e-9)
    assert float(loss(3 * student @ turn + 5, student)) == pytest.approx(0, abs=1e-12)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert float(loss(student[order], teacher[order])) == pytest.approx(found, rel=1e-12)
    assert float(loss(student.reshape(6, 2, 2), teacher)) == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("loss", [distance_loss, angle_loss])
def test_examples_that_coincide_give_finite_gradients(loss: Callable[..., Tensor]) -> None:
    twice = vectors(4, 3)
    twice[1] = twice[0]
    for given in (twice, torch.ones(4, 3, dtype=torch.float64)):
        student = given.clone().requires_grad_()
        found = loss(student, vectors(4, 5, seed=1))
        found.backward()
        assert 0 < float(found.detach()) < 2
        assert float(student.grad.abs().max()) < 10


def relation(x: Tensor, heads: int, head: int, query: int, length: int) -> np.ndarray:  # type: ignore[type-arg]
    """Row `query` of a relation head over the first `length` positions of one example (H, L, d)."""
    joined = np.concatenate([part.numpy() for part in x], axis=1)  # (L, H * d)
    width = joined.shape[1] // heads
    part = joined[:length, head * width : (head + 1) * width]
    return np.asarray(softmax(part @ part[query] / np.sqrt(width)))


@pytest.mark.parametrize(("lengths", "heads"), [([5, 5], 2), ([5, 2], 4), ([1, 3], 12)])
def test_attention_relations_are_compared_query_by_query(lengths: list[int], heads: int) -> None:
    student, teacher = vectors(2, 3, 5, 4), vectors(2, 4, 5, 6, seed=1)  # 12 and 24 wide
    mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    each = [
        rel_entr(relation(teacher[n], heads, h, q, lengths[n]), relation(student[n], heads, h, q, lengths[n])).sum()
        for n in range(2)
        for h in range(heads)
        for q in range(lengths[n])
    ]
    for kind in (mask, mask.float()):
        found = attention_relation_loss(student, teacher, heads, mask=kind)
        assert float(found) == pytest.approx(np.mean(each), rel=1e-9)


def test_padding_changes_nothing() -> None:
    student, teacher = vectors(2, 3, 4, 4), vectors(2, 4, 4, 6, seed=1)
    expected = float(attention_relation_loss(student, teacher, 2))
    assert float(attention_relation_loss(student, teacher, 2, mask=torch.ones(2, 4))) == pytest.approx(expected)
    padded = [torch.cat([x, 9 * torch.ones_like(x[:, :, :3])], 2) for x in (student, teacher)]
    mask = (torch.arange(7) < 4).expand(2, 7)
    assert float(attention_relation_loss(*padded, 2, mask=mask)) == pytest.approx(expected, rel=1e-12)
    twice = attention_relation_loss(student.repeat(2, 1, 1, 1), teacher.repeat(2, 1, 1, 1), 2)
    assert float(twice) == pytest.approx(expected, rel=1e-12)
