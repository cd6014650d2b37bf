"""Widths for a latency, with tables of closed form."""

import itertools
from dataclasses import replace

import pytest
import torch

from stages.prune.allocation.greedy import fastest
from stages.prune.coupling.coupled import Coupled
from stages.prune.coupling.parts import Place


class Table:
    """Each group has a layer of its own: seconds by group and count."""

    def __init__(self, *seconds):
        self.seconds = seconds

    def of(self, counts, group=None):
        some = range(len(counts)) if group is None else [group]
        return sum(self.seconds[i](counts[i]) for i in some)


def groups(*widths):
    place = Place("layer", "out")
    return [Coupled("layer", ("layer",), 1, torch.arange(n) + 1.0, {place: torch.arange(n)}) for n in widths]


def in_blocks(count):
    """As kernels that compute 16 channels at a time."""
    return -(-count // 16)


def test_it_is_the_least_loss_where_layers_are_alike():
    counts, taken = fastest(groups(32, 32), Table(float, float), 40, "uniform", 4)
    assert (counts, taken) == ((20, 20), 40)
    best = min(
        (loss := sum(((32 - c) / 32) ** 2 for c in some), some)
        for some in itertools.product(range(4, 33, 4), repeat=2)
        if sum(some) <= 40
    )
    assert best[1] == counts
    assert loss >= best[0]


def test_no_width_is_taken_that_is_no_faster_than_a_larger_one():
    counts, taken = fastest(groups(64, 64), Table(in_blocks, in_blocks), 5, "uniform", 8)
    assert taken == 5
    assert all(count % 16 == 0 for count in counts)
    slow_odd = Table(lambda count: count + 30 * (count % 16 != 0))
    assert fastest(groups(64), slow_odd, 50, "uniform", 8)[0] == (48,)


def test_what_matters_less_leaves_first():
    one, other = groups(16, 16)
    ten = replace(other, scores=other.scores * 10)
    assert fastest([one, ten], Table(float, float), 20, "global", 1)[0] == (5, 15)  # its least is less than the 12th
    assert fastest([one, ten], Table(float, float), 20, "uniform", 1)[0] == (10, 10)


def test_the_slower_layer_gives_more():
    counts, _ = fastest(groups(32, 32), Table(lambda count: 4 * count, float), 100, "uniform", 4)
    assert counts[0] < counts[1]


def test_where_it_is_out_of_reach_it_is_the_fastest_found():
    assert fastest(groups(32, 8), Table(float, float), 1, "uniform", 8) == ((8, 8), 16)  # one no wider than 8 stays


@pytest.mark.parametrize("scope", ["uniform", "global", "sensitivity"])
def test_nothing_leaves_where_it_is_fast_enough(scope):
    assert fastest(groups(32), Table(float), 32, scope, 8) == ((32,), 32)
