"""The hint loss against its sum, written out."""

import numpy as np
import pytest
import torch

from stages.kd.losses.features import hint_loss
from tests.draws import normal as features


@pytest.mark.parametrize("shape", [(4, 6), (3, 5, 6), (2, 6, 3, 4), (2, 6, 2, 3, 2)])
def test_hint_loss_is_the_mean_square(shape: tuple[int, ...]) -> None:
    student, teacher = features(*shape), features(*shape, seed=1)
    expected = float(np.mean((student.numpy() - teacher.numpy()) ** 2))
    assert float(hint_loss(student, teacher)) == pytest.approx(expected, rel=1e-12)
    twice = hint_loss(torch.cat([student, student]), torch.cat([teacher, teacher]))
    assert float(twice) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("shape", "axis"), [((4, 6), 1), ((3, 5, 6), 2), ((2, 6, 3, 4), 1), ((2, 6, 2, 3, 2), 1)])
def test_normalized_it_is_two_minus_two_cosines_over_the_channels(shape: tuple[int, ...], axis: int) -> None:
    student, teacher = features(*shape), features(*shape, seed=1)
    a, b = student.numpy(), teacher.numpy()
    cosine = (a * b).sum(axis) / np.sqrt((a**2).sum(axis) * (b**2).sum(axis))
    expected = np.mean(2 - 2 * cosine) / shape[axis]
    assert float(hint_loss(student, teacher, normalize=True)) == pytest.approx(expected, rel=1e-12)
    assert float(hint_loss(7 * student, teacher, normalize=True)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_padding_does_not_count(normalize: bool) -> None:
    student, teacher = features(3, 5, 6), features(3, 5, 6, seed=1)
    mask = torch.arange(5)[None] < torch.tensor([5, 1, 3])[:, None]
    expected = float(hint_loss(student[mask], teacher[mask], normalize=normalize))
    student[~mask] = torch.nan
    for kind in (mask, mask.long(), mask.float()):
        assert float(hint_loss(student, teacher, mask=kind, normalize=normalize)) == pytest.approx(expected, rel=1e-12)


def test_positions_of_images_can_be_masked() -> None:
    student, teacher, mask = features(2, 6, 3, 4), features(2, 6, 3, 4, seed=1), torch.rand(2, 3, 4) < 0.5
    error = ((student - teacher) ** 2).movedim(1, -1)[mask]
    assert float(hint_loss(student, teacher, mask=mask)) == pytest.approx(float(error.mean()), rel=1e-12)
