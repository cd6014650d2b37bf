"""Counts from ratios and targets; no torch-pruning, the cost is a closed form."""

import copy
import re
from dataclasses import replace
from itertools import product
from math import prod

import pytest
import torch

from pipeline.errors import StageError
from stages.prune.allocation.search import kept, lost, removed, solve, told_widths
from stages.prune.coupling.coupled import Coupled
from stages.prune.coupling.engine import couplings, trimmed, widths
from stages.prune.coupling.flow import NONE
from stages.prune.coupling.parts import Place
from tests.stages.prune.coupling import nets


def group(scores: torch.Tensor, groups: int = 1) -> Coupled:
    places = {Place("layer", "out"): torch.arange(len(scores)).repeat(groups)}
    return Coupled("layer", ("layer",), groups, scores.float(), places)


def even(*widths: int) -> list[Coupled]:
    return [group(torch.arange(width) + 1.0) for width in widths]


UNEQUAL = [group(torch.tensor([1.0, 2, 3, 4])), group(torch.tensor([10.0, 20, 30, 40]))]
MIDDLE = torch.arange(32).sub(15.5).abs() < 8  # eight channels in front and eight behind stay
PARTS = group(torch.tensor([3.0, 1, 2, 0, 5, 4, 7, 6]), groups=4)  # 32 channels
PADDED = replace(group(torch.arange(16.0)), places={Place("layer", "out"): torch.arange(-8, 24).where(MIDDLE, NONE)})


@pytest.mark.parametrize(("groups", "ratio", "scope", "round_to", "counts"), [
    (even(10, 20, 40), 0.3, "uniform", 1, (7, 14, 28)),  # the same share
    (even(10, 20), 0.0, "uniform", 1, (10, 20)),
    (even(10, 20), 1.0, "uniform", 1, (1, 1)),
    (UNEQUAL, 0.25, "global", 1, (2, 4)),  # where it matters least
    (UNEQUAL, 0.75, "global", 1, (1, 2)),
    (UNEQUAL, 1.0, "global", 1, (1, 1)),
    (even(4, 8, 9), 0.9, "uniform", 8, (4, 8, 8)),  # a group no wider than round_to stays
    ([PARTS], 0.5, "uniform", 8, (4,)),  # of each part: 16 in all
    ([PARTS], 0.5, "uniform", 1, (4,)),
    ([PADDED], 0.5, "uniform", 8, (8,)),  # 24 in all
    ([PADDED], 0.5, "uniform", 4, (8,)),
])  # fmt: skip
def test_so_many_channels_are_kept(groups, ratio, scope, round_to, counts):
    assert kept(groups, ratio, scope, round_to) == counts


def test_parts_lose_the_same_channels():
    assert removed(PARTS, 6) == [1, 3, 9, 11, 17, 19, 25, 27]


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("round_to", [1, 4, 8])
def test_counts_fall_with_the_ratio_and_are_round(scope, round_to):
    generator = torch.Generator().manual_seed(0)
    groups = [group(torch.rand(width, generator=generator)) for width in (3, 12, 18, 64)]
    before = (3, 12, 18, 64)
    for ratio in torch.linspace(0, 1, 41).tolist():
        counts = kept(groups, ratio, scope, round_to)
        assert all(count <= wider for count, wider in zip(counts, before, strict=True))
        for count, width in zip(counts, (3, 12, 18, 64), strict=True):
            assert count == width or (count % round_to == 0 and count >= round_to)
        before = counts


def test_the_solution_is_the_largest_within_the_target():
    groups = even(12, 9)

    def cost(counts):
        return 3 * counts[0] + counts[0] * counts[1] + 5 * counts[1]

    for target in (150, 100, 60, 25, 9):
        ratio, counts = solve(groups, cost, target, "uniform", 1)
        assert 0 < ratio <= 1
        assert cost(counts) <= target
        wider = [(counts[0] + i, counts[1] + j) for i, j in product((0, 1), (0, 1)) if i + j]
        assert all(cost(w) > target for w in wider if w[0] <= 12 and w[1] <= 9)


def test_equal_layers_do_not_jump_together():
    _, counts = solve(even(32, 32, 32, 32), lambda counts: sum(c * c for c in counts), 4 * 32 * 32 / 2, "uniform", 8)
    assert sorted(counts) == [16, 24, 24, 24]  # 1984 of 2048, where 16 everywhere would be 1024


def test_each_set_of_counts_is_measured_once():
    seen = []

    def cost(counts):
        seen.append(counts)
        return prod(counts)

    solve(even(64, 64), cost, 1000, "uniform", 8)
    assert len(seen) == len(set(seen)) < 15


def test_a_target_out_of_reach_says_what_is_in_reach():
    with pytest.raises(StageError, match="still 64 with all channels removed that can be; expected at most 10"):
        solve(even(32, 32), prod, 10, "uniform", 8)


@pytest.mark.parametrize("name", ["zeros around", "added to two", "gated halves", "in groups", "twice", "into a GRU",
                                  "pixels shuffled by a function", "transposed in groups"])  # fmt: skip
def test_the_widths_that_are_told_are_those_that_come_out(name: str) -> None:
    net, values, _ = nets.RIGHT[name]
    module = copy.deepcopy(net).eval()
    groups = couplings(module, {"input": values}).groups
    counts = kept(groups, 0.5, "uniform", 1)
    before, after = widths(module), widths(trimmed(module, lost(groups, counts), groups))
    told = re.findall(r"(\d+) to (\d+) in \d+ layers? \((.*?)\)", told_widths(groups, counts))
    pairs = {layer: (int(old), int(new)) for old, new, layers in told for layer in re.findall("`(.*?)`", layers)}
    assert pairs == {layer: (before[layer], after[layer]) for layer in pairs}
    assert pairs or name == "added to two"
