"""The one-standard-error rule, on differences in pairs."""

import pytest
import torch

from stages.trainer.choice import is_as_good


@pytest.mark.parametrize(("lost", "gained", "good"), [
    (0, 0, True), (1, 0, True), (2, 0, False), (2, 1, True), (3, 1, True), (4, 1, False), (6, 3, True), (7, 3, False),
    (0, 5, True),
])  # fmt: skip
@pytest.mark.parametrize("size", [20, 2000])
def test_what_is_lost_beyond_what_is_gained_is_at_most_the_root_of_what_changed(
    size: int, lost: int, gained: int, good: bool
) -> None:
    best = (torch.arange(size) < size // 2).float()  # half are right, which pairs leave out
    scores = best.clone()
    scores[:lost], scores[size - gained :] = 0, 1
    assert is_as_good(scores, best.tolist()) is good


def test_scores_that_are_all_a_little_lower_are_surely_lower() -> None:
    best = torch.linspace(0, 1, 50)
    assert not is_as_good(best - 0.001, best.tolist())
    assert is_as_good(best + 0.001, best.tolist())
