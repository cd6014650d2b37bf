"""Heads by values: where they lie in a layer, what counts them, and what is none."""

import pytest
import torch
from torch import nn

from stages.prune.coupling.engine import couplings
from stages.prune.coupling.parts import Place
from tests.stages.prune.prune_nets import built


def heads(net, x):
    groups = couplings(net.eval(), {"input": x}, with_heads=True).groups
    return [group for group in groups if group.width == "heads"]


class Interleaved(nn.Module):
    """Queries, keys and values of a head beside each other; a norm of queries that all heads share; no size of all."""

    def __init__(self, shared: bool = True) -> None:
        super().__init__()
        self.head_dim = 4
        self.qkv, self.norm, self.out = nn.Linear(8, 36), nn.LayerNorm(4), nn.Linear(12, 8)
        self.shared = shared

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (-1, 3, self.head_dim)).transpose(1, 2).unbind(3)
        q = self.norm(q) if self.shared else q
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("shared", [True, False])
def test_heads_may_lie_interleaved_and_share_a_norm(shared):
    torch.manual_seed(0)
    (group,) = heads(Interleaved(shared), torch.randn(2, 5, 8))
    assert group.places.keys() == {Place("qkv", "out"), Place("out", "in")}
    assert group.labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert group.places[Place("out", "in")].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_an_integer_that_is_as_large_by_chance_stays():
    net = built("transformer_nets.py:Hand", heads=4, keys=4, each=4).module  # as many heads as channels in one
    (group,) = heads(net, torch.rand(2, 1, 8, 8))
    assert {place.name for place in group.places if place.side == "size"} == {"n_heads", "n_keys", "inner", "narrow"}
    assert group.labels.tolist() == [i // 4 for i in range(16)] * 3


def test_of_integers_that_nothing_needs_only_those_named_after_heads_follow():
    net = built("transformer_nets.py:Hand").module
    net.drop_blocks = net.num_heads = net.n_heads  # one for training, one for people who read it
    (group,) = heads(net, torch.rand(2, 1, 8, 8))
    assert group.sizes == {"n_heads", "n_keys", "inner", "narrow", "num_heads"}


def test_the_heads_of_layers_with_a_shared_bias_leave_together():
    net = built("transformer_nets.py:t5").module
    (group,) = heads(net, torch.rand(2, 1, 8, 8))
    attention = "model.encoder.block.0.layer.0.SelfAttention"
    assert group.places[Place(f"{attention}.relative_attention_bias", "out")].tolist() == [0, 1, 2, 3]
    sizes = {place.name.rpartition(".")[2] for place in group.places if place.side == "size"}
    assert sizes == {"n_heads", "inner_dim"}  # not d_model, which is as large


def test_a_feed_forward_part_beside_an_integer_is_no_attention():
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    net.n_heads = 4
    assert heads(net, torch.rand(2, 8)) == []
