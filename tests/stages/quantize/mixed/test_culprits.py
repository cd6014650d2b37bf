import random

import pytest

from stages.quantize.mixed.culprits import culprits

PARTS = [f"layer{i}" for i in range(57)]


@pytest.mark.parametrize("planted", [["layer0"], ["layer56"], ["layer20", "layer21"], ["layer3", "layer30", "layer44"]])
def test_it_names_those_that_account_for_the_loss_and_no_other(planted: list[str]) -> None:
    noise = random.Random(0)
    costs = {part: noise.uniform(0, 0.001) for part in PARTS} | {part: 1.0 + i for i, part in enumerate(planted)}
    tried: list[frozenset[str]] = []

    def loss(undone: frozenset[str]) -> float:
        tried.append(undone)
        return sum(cost for part, cost in costs.items() if part not in undone)

    some = culprits(PARTS, sum(costs.values()), loss, 0.1)
    assert [culprit.part for culprit in some] == sorted(planted, key=lambda part: -costs[part])
    assert all(culprit.gain == pytest.approx(costs[culprit.part]) for culprit in some)
    assert len(tried) <= 12 * len(planted)


def test_a_loss_of_many_names_none() -> None:
    assert culprits(PARTS, 57.0, lambda undone: 57.0 - len(undone), 0.1) == []


def test_nothing_lost_names_none() -> None:
    assert culprits(PARTS, 0.0, lambda undone: 0.0, 0.1) == []
    assert culprits(["one"], 0.0, lambda undone: 0.0, 0.1) == []


def test_a_single_part_is_to_blame() -> None:
    assert [culprit.part for culprit in culprits(["one"], 1.0, lambda undone: 0.0, 0.1)] == ["one"]
