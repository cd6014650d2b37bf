"""Activation maps and attention scores, position by position."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stages.kd.losses.attention import activation_transfer_loss, attention_loss, attention_scores
from tests.draws import normal as features


def activation_map(given: Tensor, power: float) -> Any:
    """The sum of powers over its length."""
    energy = (np.abs(given.numpy()) ** power).sum(1).reshape(len(given), -1)
    return energy / np.sqrt((energy**2).sum(1, keepdims=True))


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 5, 3, 4), (2, 5, 3, 2, 2)])
def test_transfer_loss_is_the_mean_square_of_maps_of_any_width(shape: tuple[int, ...], power: int) -> None:
    student, teacher = features(*shape), features(shape[0], 11, *shape[2:], seed=1)
    difference = activation_map(student, power) - activation_map(teacher, power)
    loss = activation_transfer_loss(student, teacher, power)
    assert float(loss) == pytest.approx(float(np.mean(difference**2)), rel=1e-12)
    assert float(activation_transfer_loss(3 * student, teacher, power)) == pytest.approx(float(loss), rel=1e-12)


def test_the_larger_map_is_averaged_down_axis_by_axis() -> None:
    student, teacher = features(2, 3, 4, 3), features(2, 5, 2, 9, seed=1)  # taller and narrower
    a, b = student.square().sum(1), teacher.square().sum(1)
    a, b = a.reshape(2, 2, 2, 3).mean(2), b.reshape(2, 2, 3, 3).mean(3)
    a, b = (x.flatten(1) / x.flatten(1).square().sum(1, keepdim=True).sqrt() for x in (a, b))
    assert float(activation_transfer_loss(student, teacher)) == pytest.approx(float((a - b).square().mean()), rel=1e-12)


@pytest.mark.parametrize("spatial", [(6,), (4, 6), (2, 4, 2)])
def test_a_map_of_another_resolution_is_the_same_map(spatial: tuple[int, ...]) -> None:
    teacher = features(2, 5, *spatial)
    student = teacher
    for axis in range(2, teacher.ndim):
        student = student.repeat_interleave(2, axis)
    assert float(activation_transfer_loss(student, teacher)) == pytest.approx(0, abs=1e-15)
    assert float(activation_transfer_loss(teacher, student)) == pytest.approx(0, abs=1e-15)


def test_dead_features_give_no_gradient_rather_than_nan() -> None:
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    activation_transfer_loss(student, features(2, 3, 4, 4).float()).backward()
    assert float(student.grad.abs().max()) == 0  # type: ignore[union-attr]


def test_scores_are_what_attention_takes_the_softmax_of() -> None:
    query, key, value = features(2, 3, 5, 4), features(2, 3, 6, 4, seed=1), features(2, 3, 6, 4, seed=2)
    found = attention_scores(query, key)
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(found.softmax(-1) @ value, expected)
    assert float(found[1, 2, 3, 4]) == pytest.approx(float(query[1, 2, 3] @ key[1, 2, 4]) / math.sqrt(4), rel=1e-12)


def test_attention_loss_is_the_mean_square_over_pairs_that_count() -> None:
    student, teacher = features(3, 2, 5, 5), features(3, 2, 5, 5, seed=1)
    lengths = [5, 1, 3]
    mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    pairs = [
        (n, h, i, j)
        for n, h in itertools.product(range(3), range(2))
        for i, j in itertools.product(range(lengths[n]), repeat=2)
    ]
    expected = np.mean([float(student[p] - teacher[p]) ** 2 for p in pairs])
    for n in range(3):  # as models leave it
        student[n, :, :, lengths[n] :] = -torch.inf
        teacher[n, :, :, lengths[n] :] = -torch.inf
    student.requires_grad_()
    found = attention_loss(student, teacher, mask=mask.long())
    found.backward()
    assert float(found.detach()) == pytest.approx(expected, rel=1e-12)
    assert bool(torch.isfinite(student.grad).all())  # type: ignore[arg-type]


def test_attention_loss_without_a_mask_and_with_one_of_ones() -> None:
    student, teacher = features(3, 2, 5, 5).requires_grad_(), features(3, 2, 5, 5, seed=1)
    found = float(attention_loss(student, teacher).detach())
    assert found == pytest.approx(float((student - teacher).detach().square().mean()), rel=1e-12)
    assert float(attention_loss(student, teacher, mask=torch.ones(3, 5)).detach()) == pytest.approx(found, rel=1e-12)
