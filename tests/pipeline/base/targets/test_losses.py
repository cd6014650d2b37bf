"""Losses and scores against torch's and scikit-learn's, with what does not count left out."""

from typing import Any

import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.targets.losses import binary_cross_entropy, correct, cross_entropy, jaccard
from pipeline.errors import ConfigError
from tests.draws import class_numbers, normal

DENSE = class_numbers(4, 5, 6, classes=3)
DENSE[0, :2] = -100
SINGLE = torch.tensor([0, 2, -100, 1])
LABELS = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, -100, 0], [0, 1, 1]])


@pytest.mark.parametrize(("logits", "targets", "expected"), [
    (normal(4, 3), SINGLE, lambda z: F.cross_entropy(z, SINGLE)),
    (normal(4, 3), SINGLE.float(), lambda z: F.cross_entropy(z, SINGLE)),
    (normal(4, 3), SINGLE[:, None].int(), lambda z: F.cross_entropy(z, SINGLE)),
    (normal(4, 3), normal(4, 3).softmax(1), lambda z: F.cross_entropy(z, normal(4, 3).softmax(1))),
    (normal(4, 3), F.one_hot(SINGLE.clamp(0)), lambda z: F.cross_entropy(z, SINGLE.clamp(0))),
    (normal(4, 3, 5, 6), DENSE, lambda z: F.cross_entropy(z, DENSE)),
    (normal(4, 5, 6, 3), DENSE, lambda z: F.cross_entropy(z.movedim(-1, 1), DENSE)),
])  # fmt: skip
def test_cross_entropy_is_torchs_on_the_axis_of_the_classes(logits: Tensor, targets: Tensor, expected: Any) -> None:
    torch.testing.assert_close(cross_entropy({"output": logits}, targets), expected(logits))


def test_another_target_is_ignored_where_it_is_named() -> None:
    logits, targets = normal(4, 3), torch.tensor([0, 255, 2, 255])
    expected = F.cross_entropy(logits[::2], targets[::2])
    torch.testing.assert_close(cross_entropy({"output": logits}, targets, ignore_index=255), expected)
    assert correct(logits, targets, ignore_index=255).isnan().tolist() == [False, True, False, True]


@pytest.mark.parametrize(("loss", "ignored"), [
    (cross_entropy, torch.full((4,), -100)),
    (binary_cross_entropy, torch.full((4, 3), -100)),
])  # fmt: skip
def test_where_nothing_counts_the_loss_and_its_gradient_are_0(loss: Any, ignored: Tensor) -> None:
    logits = normal(4, 3).requires_grad_()
    loss({"output": logits}, ignored).backward()
    assert float(loss({"output": logits}, ignored)) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_score_is_the_share_of_positions_that_are_right() -> None:
    logits = normal(4, 3, 5, 6)
    right, counted = logits.argmax(1) == DENSE, DENSE != -100
    expected = [float(right[i][counted[i]].double().mean()) for i in range(4)]
    assert correct(logits, DENSE).tolist() == pytest.approx(expected)
    assert correct(normal(4, 3), SINGLE).nan_to_num(-1).tolist() == [
        -1 if target < 0 else float(row.argmax() == target) for row, target in zip(normal(4, 3), SINGLE, strict=True)
    ]


def test_of_shares_the_largest_is_right() -> None:
    shares = torch.tensor([[0.6, 0.4], [0.1, 0.9]])
    assert correct(torch.tensor([[2.0, 1], [2, 1]]), shares).tolist() == [1, 0]


def test_binary_cross_entropy_is_torchs_over_what_counts() -> None:
    logits, counted = normal(4, 3).float(), LABELS >= 0
    expected = F.binary_cross_entropy_with_logits(logits[counted], LABELS[counted])
    torch.testing.assert_close(binary_cross_entropy({"output": logits}, LABELS), expected)
    single = torch.tensor([1, 0, 1, 1])
    expected = F.binary_cross_entropy_with_logits(logits[:, 0], single.float())
    torch.testing.assert_close(binary_cross_entropy({"output": logits[:, :1]}, single), expected)


def test_the_jaccard_index_is_scikit_learns() -> None:
    logits, labels = normal(50, 4) - 0.5, (normal(50, 4, seed=1) > 0.8).float()
    expected = jaccard_score(labels, logits > 0, average="samples", zero_division=1.0)
    assert float(jaccard(logits, labels).mean()) == pytest.approx(expected)
    assert jaccard(logits[:, :1], labels[:, 0]).tolist() == ((logits[:, 0] > 0) == (labels[:, 0] > 0)).float().tolist()


def test_a_label_that_does_not_count_changes_no_score() -> None:
    logits = normal(4, 3)
    assert jaccard(logits, LABELS)[2] == jaccard(logits[2:3, [0, 2]], LABELS[2:3, [0, 2]])[0]
    assert bool(jaccard(logits, torch.full((4, 3), -100)).isnan().all())


@pytest.mark.parametrize(("function", "targets", "message"), [
    (cross_entropy, torch.zeros(4, 2), r"the targets are \(4, 2\); expected class numbers in the shape of the logits"),
    (cross_entropy, torch.rand(4), "the targets are"),
    (binary_cross_entropy, torch.zeros(4), r"expected 0 or 1 for each of the logits \(4, 3\)"),
])  # fmt: skip
def test_targets_of_another_shape_are_refused(function: Any, targets: Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        function({"output": normal(4, 3)}, targets)
