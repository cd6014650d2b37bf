"""What fewer channels cost, counted from shapes: compared with networks that are cut and counted as they run."""

import random

import pytest
import torch
from torch import nn

from stages.prune.allocation.costs import Cost
from stages.prune.allocation.search import kept, lost
from stages.prune.coupling import engine
from stages.prune.coupling.engine import couplings
from tests.stages.prune.coupling.nets import RIGHT, Net, row
from tests.stages.prune.prune_nets import (
    Auxiliary,
    Encoder,
    Flat,
    MobileNet,
    PlainNet,
    Recurrent,
    Stacked,
    Tied,
    Tokens,
)

IMAGE = torch.rand(2, 1, 8, 8)
NETS = {
    kind.__name__: (kind(), IMAGE)
    for kind in (PlainNet, MobileNet, Encoder, Tokens, Recurrent, Stacked, Flat, Auxiliary)
}
NETS["Tied"] = (Tied(), torch.arange(12).view(2, 6))
TWICE = {"a": nn.Linear(4, 8), "b": nn.Linear(8, 8), "o": nn.Linear(8, 2)}
NETS["Twice"] = (Net(lambda s, x: s.o(s.b(s.b(s.a(x).relu()))), **TWICE), torch.rand(3, 4))
NETS |= {what: (net, x) for what, (net, x, _) in RIGHT.items()}


@pytest.mark.parametrize("unit", ["macs", "params", "channels"])
@pytest.mark.parametrize("what", NETS)
def test_it_is_what_the_smaller_network_costs(what, unit, monkeypatch):
    net, x = NETS[what]
    module, example = net.eval(), {"input": x}
    groups = couplings(module, example).groups
    cost = Cost(unit, example, frozenset(layer for group in groups for layer in group.layers))
    trimmed, cuts = engine.trimmed, []
    monkeypatch.setattr(engine, "trimmed", lambda *some: cuts.append(some) or trimmed(*some))
    counted = cost.by_counts(module, groups, kept(groups, 1.0, "uniform", 1))
    draw = random.Random(0)
    some = [tuple(draw.randint(1, len(group.scores)) for group in groups) for _ in range(4)]
    costs = [counted(counts) for counts in some]
    assert len(cuts) == 1  # the proof
    assert costs == [cost.of(trimmed(module, lost(groups, counts), groups)) for counts in some]


def test_products_of_the_forward_are_counted_on_copies():
    net = row(lambda s, x: s.o((x @ x.mT).softmax(-1) @ s.a(x)), 32).eval()
    example = {"input": torch.rand(3, 4)}
    counted = Cost("macs", example, frozenset(["a"])).by_counts(net, couplings(net, example).groups, (1,))
    assert [counted((width,)) for width in (32, 8)] == [4 + width * (4 + 1 + 2) for width in (32, 8)]
