"""How many ranks: against all that there are on small networks, and what is told of `rank`."""

from dataclasses import replace
from itertools import permutations, product
from math import prod

import pytest
import torch
from torch import nn

from pipeline.base.use import Reference
from pipeline.errors import ConfigError
from pipeline.model import TorchModel
from stages.prune.ranks.choice import STEPS, Options, as_told, by_cost, by_energy, named, options
from stages.prune.ranks.decomposition import kept
from stages.prune.ranks.layers import GROUPED, Layers, find


def layers_of(*layers, shape):
    torch.manual_seed(0)
    return find(
        TorchModel(nn.Sequential(*layers), {"input": torch.rand(2, *shape)}, Reference(use="none")), (), "tucker"
    )


NET = layers_of(
    nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 12), nn.Linear(12, 12), shape=(6, 6, 6)
)
EVERY = [options(layer, layer.choices(2), kept(layer.part.weight.detach(), None, layer.count)) for layer in NET.layers]


def outcome(ranks, kind):
    """What all layers cost and lose."""
    cost = lost = 0.0
    for one in EVERY:
        if one.name not in ranks:
            cost += one.whole[kind]
            continue
        place = one.ranks.tolist().index([*ranks[one.name]])
        cost, lost = cost + int(one.costs[place, kind]), lost + 1 - float(one.kept[place])
    return cost, lost


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.95])
def test_ranks_for_a_cost_lose_least_of_all_that_there_are(kind, share):
    rows = [
        [*zip(one.costs[:, kind].tolist(), (1 - one.kept).tolist(), strict=True), (one.whole[kind], 0.0)]
        for one in EVERY
    ]
    assert prod(map(len, rows)) > 500
    budget = int(share * sum(one.whole[kind] for one in EVERY))
    fitting = (sum(lost for _, lost in picks) for picks in product(*rows) if sum(c for c, _ in picks) <= budget)
    cost, lost = outcome(by_cost(EVERY, kind, budget), kind)
    assert cost <= budget
    assert lost == pytest.approx(min(fitting), abs=1e-9)


def test_the_least_that_there_is_is_reached():
    for kind in (0, 1):
        budget = sum(int(one.costs[:, kind].min()) for one in EVERY)
        assert outcome(by_cost(EVERY, kind, budget), kind)[0] == budget


def test_large_costs_are_rounded_up_and_even_so_the_cheapest_are_found():
    size = 1000 * STEPS
    ranks, costs = torch.tensor([[1], [2]]), torch.tensor([[size + 1] * 2, [2 * size] * 2])
    one = Options("a", ranks, costs, torch.tensor([0.5, 0.8]), (3 * size, 3 * size))
    both = [one, Options("b", one.ranks, one.costs, one.kept, one.whole)]
    assert by_cost(both, 0, 2 * (size + 1)) == {"a": (1,), "b": (1,)}
    assert by_cost(both, 0, 6 * size) == {}
    assert sorted(by_cost(both, 0, 5 * size + 10).values()) == [(2,)]


def test_ranks_by_energy_are_the_cheapest_that_keep_it():
    for one in EVERY:
        for share in (0.3, 0.6):
            ranks = by_energy(one, share)
            enough = [int(c) for c, k in zip(one.costs[:, 1], one.kept, strict=True) if k >= share]
            assert int(one.costs[one.ranks.tolist().index([*ranks]), 1]) == min(enough)
        assert by_energy(one, 0.999999) is None


def test_patterns_tell_ranks_and_a_name_itself_counts_most():
    assert as_told(NET, {"1": (4, 2), "[01]": 3, "4": 5}, ConfigError) == {"1": (4, 2), "0": (3, 3), "4": (5,)}
    assert as_told(NET, {"[01]": 3, "1": (4, 2), "4": 5}, ConfigError) == {"1": (4, 2), "0": (3, 3), "4": (5,)}
    with_grouped = Layers(NET.layers, {GROUPED: ["7", "8"]})
    layers, stay = named(with_grouped, {"*[18]": 3}, ConfigError)
    assert ([layer.name for layer in layers], stay) == (["1"], {GROUPED: ["8"]})


def test_of_patterns_that_fit_the_one_of_most_letters_counts_in_any_order():
    numbers = {"*": 1, "block.*": 2, "block.*.up": 3, "block.0.up": 4, "*.up": 5}
    names = {"block.0.up": 4, "block.1.up": 3, "block.1.down": 2, "stem.up": 5, "stem": 1}
    net = Layers([replace(NET.layers[2], name=name) for name in names], {})
    for patterns in permutations(numbers):
        ranks = as_told(net, {pattern: numbers[pattern] for pattern in patterns}, ConfigError)
        assert ranks == {name: (number,) for name, number in names.items()}


@pytest.mark.parametrize(("rank", "message"), [
    ({"9": 2}, "names `9`, which is no layer that can be factorized; there are `0`, `1`, `3`, `4`"),
    ({"7": 2}, f"names `7`, and `7` stays: {GROUPED}"),
    ({"3": 9}, r"`rank` 9 makes `3` no smaller; expected at most 8"),
    ({"1": (8, 8)}, r"`rank` \[8, 8\] makes `1` no smaller; expected at most 6"),
    ({"1": (1, 12)}, r"`rank` of `1` is \[1, 12\]; expected at most \[8, 8\]: neither more than its channels"),
    ({"3": (2, 2)}, r"`rank` of `3` is \[2, 2\]; expected one number, as it becomes two layers"),
])  # fmt: skip
def test_ranks_that_cannot_be_are_refused_with_those_that_can(rank, message):
    with pytest.raises(ConfigError, match=message):
        as_told(Layers(NET.layers, {GROUPED: ["7"]}), rank, ConfigError)


def test_of_a_pair_neither_is_larger_than_the_other_with_the_kernel():
    net = layers_of(nn.Conv2d(16, 32, 3), shape=(16, 6, 6))
    assert as_told(net, {"0": (9, 1)}, ConfigError) == {"0": (9, 1)}
    with pytest.raises(ConfigError, match=r"`rank` of `0` is \[10, 1\]; expected at most \[9, 32\]: .* for each place"):
        as_told(net, {"0": (10, 1)}, ConfigError)
