"""Comparisons in pairs: flips, agreement and divergence, where something counts."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.distributions import kl_divergence as reference_kl

from pipeline.base.targets.labelling import Labelling
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.agreement import agreement, compare, kl_divergence


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(50, 7), (10, 5, 7)])
def test_kl_divergence_agrees_with_torch_distributions(shape: tuple[int, ...]) -> None:
    p, q = draw(*shape) * 3, draw(*shape, seed=1) * 3
    expected = reference_kl(Categorical(logits=p.double()), Categorical(logits=q.double())).reshape(len(p), -1).mean(1)
    found = kl_divergence(p, q, Labelling())
    assert torch.allclose(found, expected)
    assert not torch.allclose(found, kl_divergence(q, p, Labelling()))
    assert torch.allclose(kl_divergence(p, p + 5, Labelling()), torch.zeros(len(p), dtype=torch.float64), atol=1e-6)


def test_agreement_is_of_the_best_class_of_each_position_or_of_the_value() -> None:
    ours, theirs = torch.tensor([[1.0, 2], [2, 1], [0, 3], [5, 4]]), torch.tensor([[0.0, 1], [0, 1], [1, 2], [9, 0]])
    assert agreement(ours, theirs, Labelling()) == 0.75
    assert agreement(ours, theirs, None) is None
    assert agreement(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 0]), None) == 0.5
    ours = torch.nn.functional.one_hot(torch.tensor([[0, 1], [1, 1]]), 2).float()
    theirs = torch.nn.functional.one_hot(torch.tensor([[0, 1], [1, 0]]), 2).float()
    assert agreement(ours, theirs, Labelling()) == 0.75


def graded(scores: list[float]) -> Evaluation:
    return Evaluation(draw(len(scores), 3), torch.tensor(scores, dtype=torch.float64))


def test_compare_counts_flips_against_the_baseline() -> None:
    found = compare(graded([1, 0, 0, 1, 1.0]), graded([1, 1, 1, 0, 1.0]), labelling=Labelling())
    assert (found["flips"], found["retention"].value) == ({"lost": 2, "gained": 1}, pytest.approx(3 / 4))
    assert found["drop"].value == pytest.approx(0.2)
    assert 0 <= found["kl_mean"] <= found["kl_p99"]


def test_compare_leaves_out_what_means_nothing() -> None:
    found = compare(graded([-1.5, -2, -3]), graded([-1, -2, -2.5]), labelling=None)
    assert found["retention"] is None
    assert (
        found["retention_reason"]
        == "scores are not on a ratio scale: not all, or too few, are above zero; see the drop"
    )
    assert not {"flips", "mcnemar_p", "kl_mean", "kl_p99"} & set(found)


def test_kl_p99_is_the_99th_percentile() -> None:
    ours, theirs = Evaluation(draw(500, 4), torch.ones(500)), Evaluation(draw(500, 4, seed=1), torch.ones(500))
    found = compare(ours, theirs, labelling=Labelling())
    each = kl_divergence(theirs.predictions, ours.predictions, Labelling()).numpy()
    assert found["kl_p99"] == pytest.approx(np.quantile(each, 0.99))
    assert found["kl_mean"] == pytest.approx(each.mean())


@pytest.mark.parametrize(("labelling", "shape", "axis"), [
    (Labelling("dense", 1), (4, 3, 5, 6), 1),
    (Labelling("dense", 2), (4, 5, 3), 2),
    (Labelling("multi_label"), (4, 5), None),
])  # fmt: skip
def test_positions_are_compared_by_their_classes_where_they_count(
    labelling: Labelling, shape: tuple[int, ...], axis: int | None
) -> None:
    ours, theirs = draw(*shape), draw(*shape, seed=1)
    rows = [torch.stack([-x / 2, x / 2], -1) if axis is None else x.movedim(axis, -1) for x in (ours, theirs)]
    targets = torch.zeros(rows[0].shape[:-1], dtype=torch.int64)
    targets[0] = targets[1, 0] = -100
    counted = [targets[i] >= 0 for i in (1, 2, 3)]
    decided = [(rows[0][i].argmax(-1) == rows[1][i].argmax(-1))[at] for i, at in zip((1, 2, 3), counted, strict=True)]
    expected = [float(same.double().mean()) for same in decided]
    assert agreement(ours, theirs, labelling, targets) == pytest.approx(sum(expected) / 3)
    each = reference_kl(Categorical(logits=rows[0].double()), Categorical(logits=rows[1].double()))
    means = torch.stack([each[i][at].mean() for i, at in zip((1, 2, 3), counted, strict=True)])
    assert torch.allclose(kl_divergence(ours, theirs, labelling, targets), means)
    nothing = torch.full_like(targets, -100)
    assert agreement(ours, theirs, labelling, nothing) is None
    evaluations = [Evaluation(x, torch.ones(4), targets=nothing) for x in (ours, theirs)]
    assert not {"kl_mean", "kl_p99"} & set(compare(*evaluations, labelling=labelling))
