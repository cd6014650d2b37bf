"""Channels that are dead leave, and the outputs stay, wherever the channels go; where they would not, none leaves."""

import copy

import pytest
import torch

from stages.prune.coupling import proof
from stages.prune.coupling.engine import couplings, cut, widths
from stages.prune.coupling.parts import Place
from stages.prune.coupling.proof import same_without, shaken
from tests.stages.prune.coupling.nets import RIGHT, WHOLE, row
from tests.stages.prune.prune_nets import silence

ROWS = {"input": torch.randn(64, 4)}


@pytest.mark.parametrize("what", RIGHT)
def test_dead_channels_leave_and_the_outputs_stay(what):
    net, x, roots = RIGHT[what]
    module, example = copy.deepcopy(net).eval(), {"input": x}
    found = couplings(module, example)
    assert {group.root: group.groups for group in found.groups} == roots
    assert found.whole == ()
    for group in found.groups:
        sets = [0, *range(2, len(group.scores), 3)]
        gone = group.without(sets)
        for place, channels in gone.items():
            if place.name in group.layers and place.side == "out":
                silence(module.get_submodule(place.name), channels)
            elif isinstance(place.side, int):
                module.state_dict()[place.name].index_fill_(place.side, torch.tensor(channels), 0)
        smaller = cut(module, example, {group.root: gone[Place(group.root, "out")]})
        assert torch.allclose(smaller(x), module(x), atol=1e-5)
        lost = len(sets) * group.groups
        assert widths(smaller)[group.root] == widths(module)[group.root] - lost


@pytest.mark.parametrize("what", WHOLE)
def test_what_cannot_be_told_apart_stays_whole(what):
    net, x, names = WHOLE[what]
    found = couplings(copy.deepcopy(net).eval(), {"input": x})
    assert found.groups == []
    assert names <= set(found.whole)


def test_a_wrong_column_is_noticed():
    module = shaken(row(lambda s, x: s.o(s.a(x).relu()), 32).eval())
    right = {Place("a", "out"): [4], Place("o", "in"): [4]}
    assert same_without(module, ROWS, right)
    before = copy.deepcopy(module.state_dict())
    assert not same_without(module, ROWS, right | {Place("o", "in"): [5]})
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not module.a._forward_hooks


def test_weights_that_are_zero_hide_nothing():
    net = row(lambda s, x: s.o(s.a(x).relu().flip(1)), 32).eval()
    torch.nn.init.zeros_(net.o.weight)
    assert not same_without(shaken(net), ROWS, {Place("a", "out"): [4], Place("o", "in"): [4]})


def test_an_error_of_ours_is_not_taken_for_a_group_that_does_not_fit(monkeypatch):
    def fails(module, gone):
        raise IndexError("a bug")

    monkeypatch.setattr(proof, "remove", fails)
    net = row(lambda s, x: s.o(s.a(x).relu()), 32).eval()
    with pytest.raises(IndexError, match="a bug"):
        couplings(net, ROWS)
