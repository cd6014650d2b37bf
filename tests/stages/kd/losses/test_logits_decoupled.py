"""DKD and DIST against their definitions, class by class, and the averages of several teachers."""

from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import rel_entr, softmax
from scipy.stats import pearsonr
from torch import Tensor

from pipeline.errors import StageError
from stages.kd.losses.logits import averaged, decoupled_loss, dist_loss, soft_loss
from tests.draws import class_numbers, normal

logits = partial(normal, scale=2)

SHAPES = pytest.mark.parametrize("shape", [(2, 2), (3, 5), (17, 40)])
TEMPERATURES = pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])


def parts(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[float, float]:
    """(TCKD, NCKD) in sums over probabilities, each times T^2."""
    p, q = (softmax(z.numpy() / temperature, axis=1) for z in (teacher, student))
    target = rest = 0.0
    for p_row, q_row, label in zip(p, q, labels.tolist(), strict=True):
        target += rel_entr(p_row[label], q_row[label]) + rel_entr(1 - p_row[label], 1 - q_row[label])
        others = [i for i in range(len(p_row)) if i != label]
        rest += rel_entr(p_row[others] / p_row[others].sum(), q_row[others] / q_row[others].sum()).sum()
    return target * temperature**2 / len(p), rest * temperature**2 / len(p)


@SHAPES
@TEMPERATURES
def test_decoupled_loss_is_the_weighted_sum_of_its_two_parts(shape: tuple[int, int], temperature: float) -> None:
    student, teacher, labels = logits(*shape), logits(*shape, seed=1), class_numbers(shape[0], classes=shape[1])
    target, rest = parts(student, teacher, labels, temperature)
    found = decoupled_loss(student, teacher, labels, temperature, target_weight=1.5, rest_weight=3.0)
    assert float(found) == pytest.approx(1.5 * target + 3 * rest, rel=1e-8)
    assert float(decoupled_loss(student, teacher, labels, temperature)) == pytest.approx(target + 8 * rest, rel=1e-8)


def test_with_the_weight_that_the_soft_loss_gives_it_the_decoupled_loss_is_the_soft_loss() -> None:
    # Equation 5 of the paper: KL = TCKD + (1 - p_target) NCKD, row by row.
    student, teacher, labels = logits(6, 7), logits(6, 7, seed=1), class_numbers(6, classes=7)
    for row in range(6):
        one = slice(row, row + 1)
        weight = 1 - float((teacher[row] / 3).softmax(0)[labels[row]])
        found = decoupled_loss(student[one], teacher[one], labels[one], 3.0, rest_weight=weight)
        assert float(found) == pytest.approx(float(soft_loss(student[one], teacher[one], 3.0)), rel=1e-9)


def test_positions_without_a_target_do_not_count() -> None:
    student, teacher = logits(3, 8, 5), logits(3, 8, 5, seed=1)
    labels = class_numbers(3, 8, classes=5)
    labels[0, 3:], labels[1, 0], labels[2, 1] = -100, 5, -1
    mask = torch.ones(3, 8)
    mask[2, 4:] = 0
    counts = (labels >= 0) & (labels < 5) & (mask > 0)
    expected = decoupled_loss(student[counts], teacher[counts], labels[counts], 2.0)
    assert float(decoupled_loss(student, teacher, labels, 2.0, mask=mask)) == pytest.approx(float(expected), rel=1e-12)
    student.requires_grad_()
    nothing = decoupled_loss(student, teacher, torch.full((3, 8), -100), 2.0)
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert float(student.grad.abs().max()) == 0  # type: ignore[union-attr]


def test_decoupled_gradients_along_any_axis() -> None:
    student, teacher, labels = logits(2, 4, 3).requires_grad_(), logits(2, 4, 3, seed=1), class_numbers(2, 3, classes=4)
    labels[1, 2] = -100
    assert torch.autograd.gradcheck(lambda z: decoupled_loss(z, teacher, labels, 2.0, axis=1), (student,))


def test_a_target_that_is_certain_leaves_the_rest_to_be_learned() -> None:
    # 1 - p would round to 0 in single precision, and its logarithm to -inf.
    teacher, student = torch.tensor([[60.0, 1.0, 0.0]]), torch.tensor([[70.0, 0.0, 1.0]], requires_grad=True)
    loss = decoupled_loss(student, teacher, torch.tensor([0]), 1.0)
    loss.backward()
    tanh = np.tanh(0.5)  # KL between softmax([1, 0]) and softmax([0, 1]) is tanh(1/2)
    assert float(loss.detach()) == pytest.approx(8 * tanh, rel=1e-5)
    assert bool(torch.isfinite(student.grad).all())  # type: ignore[arg-type]


def correlation_loss(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    return float(np.mean([1 - pearsonr(a, b).statistic for a, b in zip(p, q, strict=True)]))


@pytest.mark.parametrize("shape", [(3, 5), (17, 40)])
@TEMPERATURES
def test_dist_loss_is_one_minus_pearsons_correlation_both_ways(shape: tuple[int, int], temperature: float) -> None:
    student, teacher = logits(*shape), logits(*shape, seed=1)
    p, q = (softmax(z.numpy() / temperature, axis=1) for z in (teacher, student))
    expected = 2 * correlation_loss(p, q) + 3 * correlation_loss(p.T, q.T)
    found = dist_loss(student, teacher, temperature, inter_weight=2.0, intra_weight=3.0)
    assert float(found) == pytest.approx(temperature**2 * expected, rel=1e-8)


def test_dist_loss_asks_for_relations_and_not_for_values() -> None:
    # Probabilities moved half the way to uniform correlate perfectly with the teacher's.
    p = logits(8, 5).softmax(1)
    student = (0.5 * p + 0.1).log()
    assert float(dist_loss(student, p.log(), 1.0)) == pytest.approx(0, abs=1e-9)
    assert float(soft_loss(student, p.log(), 1.0)) > 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_student_that_does_not_vary_correlates_with_nothing_and_gets_no_wild_gradient(dtype: torch.dtype) -> None:
    student = torch.full((6, 7), 0.3, dtype=dtype, requires_grad=True)
    loss = dist_loss(student, logits(6, 7).to(dtype), 1.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2)
    assert float(student.grad.abs().max()) == 0  # type: ignore[union-attr]


def test_dist_loss_in_single_precision_holds_for_many_classes() -> None:
    # Columns of 1e-4 at T = 20 would drown in a fixed epsilon.
    student, teacher = logits(16, 10_000), logits(16, 10_000, seed=1)
    exact = float(dist_loss(student, teacher, 20.0))
    assert float(dist_loss(student.float(), teacher.float(), 20.0)) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("temperature", [1.0, 5.0])
def test_averages_of_teachers(axis: int, temperature: float) -> None:
    teachers = [logits(3, 4, 5, seed=i) for i in range(3)]
    weights, share = [1.0, 0.0, 3.0], np.array([0.25, 0.0, 0.75])
    found = averaged(teachers, weights, how="logits", temperature=temperature, axis=axis)
    expected = sum(w * z.numpy() for w, z in zip(share, teachers, strict=True))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    found = averaged(teachers, weights, how="probabilities", temperature=temperature, axis=axis)
    expected = sum(w * softmax(z.numpy() / temperature, axis=axis) for w, z in zip(share, teachers, strict=True))
    np.testing.assert_allclose(softmax(found.numpy() / temperature, axis=axis), expected, rtol=1e-12)


def test_one_teacher_averaged_is_itself() -> None:
    student, teacher = logits(4, 6), logits(4, 6, seed=1)
    for how in ("logits", "probabilities"):
        found = averaged([teacher], [2.0], how=how, temperature=3.0)  # type: ignore[arg-type]
        assert float(soft_loss(student, found, 3.0)) == pytest.approx(float(soft_loss(student, teacher, 3.0)))


def test_teachers_that_are_certain_of_different_classes_stay_finite() -> None:
    sure = [torch.tensor([[1e4, 0.0, -1e4]]), torch.tensor([[-1e4, 0.0, 1e4]])]
    found = averaged(sure, [1, 1], how="probabilities", temperature=1.0)
    torch.testing.assert_close(found.softmax(1), torch.tensor([[0.5, 0.0, 0.5]]))
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize("weights", [[1.0], [1.0, -0.5], [0.0, 0.0]])
def test_weights_that_do_not_fit_are_refused(weights: list[float]) -> None:
    with pytest.raises(StageError, match="one each, 0 or more, not all 0"):
        averaged([logits(2, 3), logits(2, 3)], weights, how="logits", temperature=1.0)


def test_teachers_of_different_classes_are_refused() -> None:
    with pytest.raises(StageError, match=r"shape \(2, 4\); expected \(2, 3\)"):
        averaged([logits(2, 3), logits(2, 4)], [1, 1], how="logits", temperature=1.0)
    with pytest.raises(StageError, match="0 teachers"):
        averaged([], [], how="logits", temperature=1.0)
