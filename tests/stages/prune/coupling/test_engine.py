"""What is found and cut, on networks of each kind."""

import copy

import pytest
import torch
from torch import nn

from pipeline.errors import StageError
from pipeline.model import call
from stages.prune.coupling import engine
from stages.prune.coupling.engine import couplings, cut, widths
from stages.prune.coupling.parts import Place
from stages.prune.coupling.prover import Prover
from tests.stages.prune.prune_nets import DIGITS, built, silence


def by_root(model, ignore=()):
    return {g.root: g for g in couplings(copy.deepcopy(model.module), model.example, ignore).groups}


def test_the_last_layer_is_never_a_group():
    assert set(by_root(built("prune_nets.py:PlainNet"))) == {"one", "two"}
    assert "head" not in by_root(built("prune_nets.py:MobileNet"))


def test_layers_that_are_added_are_one_group():
    groups = by_root(built("models.py:DigitNet", folder=DIGITS, width=16, blocks=2))
    assert {g.layers for g in groups.values() if len(g.layers) == 1} == {("blocks.0.conv1",), ("blocks.1.conv1",)}
    (shared,) = (g for g in groups.values() if len(g.layers) > 1)
    assert set(shared.layers) == {"stem", "blocks.0.conv2", "blocks.1.conv2"}
    assert {g.width for g in groups.values() if g is not shared} == {"feed_forward"}
    assert shared.width == "hidden"


class Branches(nn.Module):
    """A convolution, what hands its channels on, and two that read them."""

    def __init__(self, through):
        super().__init__()
        self.stem, self.through = nn.Conv2d(1, 16, 3, padding=1), through
        self.a, self.b, self.head = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1), nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu(self.through(self.stem(x)))
        return self.head(torch.cat([torch.relu(self.a(x)), torch.relu(self.b(x))], 1).mean((2, 3)))


@pytest.mark.parametrize("through", [nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, padding=1, groups=16)])
def test_what_one_layer_gives_is_not_hidden_though_several_read_it(through):
    net = Branches(through).eval()
    groups = couplings(net, {"input": torch.rand(2, 1, 8, 8)}).groups
    assert [(group.root, group.width) for group in groups] == [(name, "feed_forward") for name in ("stem", "a", "b")]


def test_removing_dead_channels_changes_nothing():
    model = built("prune_nets.py:PlainNet")
    silence(model.module.one, [2, 5])
    pruned = cut(model.module, model.example, {"one": [2, 5]})
    x = torch.rand(8, 1, 8, 8)
    assert widths(pruned) == {"one": 14, "two": 32, "head": 4}
    assert torch.allclose(pruned(x), model.module(x), atol=1e-6)
    assert widths(model.module) == {"one": 16, "two": 32, "head": 4}


def test_depthwise_and_grouped_convolutions():
    model = built("prune_nets.py:MobileNet")
    groups = by_root(model)
    (wide,) = (g for g in groups.values() if "depthwise" in g.layers)
    assert (set(wide.layers), wide.groups) == ({"expand", "depthwise"}, 1)
    assert groups["grouped"].groups == 4
    (stem,) = (g for g in groups.values() if "stem" in g.layers)
    assert stem.groups == 4  # it feeds the grouped convolution
    pruned = cut(model.module, model.example, {wide.root: list(range(8)), "grouped": [0, 8, 16, 24]})
    assert pruned.depthwise.groups == pruned.depthwise.in_channels == 40
    assert pruned.groupnorm.num_channels == 28


def test_a_dead_channel_of_every_part_can_go():
    model = built("prune_nets.py:MobileNet")
    dead = [1, 5, 9, 13]
    silence(model.module.stem, dead)
    silence(model.module.project, dead)
    (stem,) = (g for g in by_root(model).values() if "stem" in g.layers)
    pruned = cut(model.module, model.example, {stem.root: dead})
    x = torch.rand(4, 1, 8, 8)
    assert torch.allclose(pruned(x), model.module(x), atol=1e-5)


def test_a_stream_of_tokens_loses_channels_with_its_norm_and_positions():
    """No layer reads the rows beside the token after the sum: it is the sum that needs as many channels of both."""
    model = built("prune_nets.py:Tokens")
    groups = by_root(model)
    assert {root: group.layers for root, group in groups.items()} == {"embed": ("embed", "down"), "up": ("up",)}
    pruned = cut(model.module, model.example, {"embed": [0, 7, 9]})
    rest = [i for i in range(16) if i not in (0, 7, 9)]
    assert pruned.norm.normalized_shape == (13,)
    assert torch.equal(pruned.positions, model.module.positions[..., rest])
    assert torch.equal(pruned.token, model.module.token[..., rest])
    assert torch.equal(pruned.head.weight, model.module.head.weight[:, rest])


def test_only_the_feed_forward_part_of_an_encoder():
    assert set(by_root(built("prune_nets.py:Encoder"))) == {"encoder.layers.0.linear1", "encoder.layers.1.linear1"}


def test_several_inputs_and_an_output_in_the_middle():
    example = {"image": torch.rand(2, 1, 8, 8), "token": torch.tensor([1, 2])}
    model = built("prune_nets.py:TwoInputs", example)
    assert set(by_root(model)) == {"image", "hidden"}
    pruned = cut(model.module, example, {"image": [0, 3], "hidden": [1]})
    assert pruned.features.in_features == 30
    assert call(pruned, example)["features"].shape == (2, 24)


def test_tied_parameters_are_cut_as_one():
    example = {"tokens": torch.randint(20, (2, 5))}
    pruned = cut(built("prune_nets.py:Tied", example).module, example, {"down": [0, 1], "up": [3]})
    assert pruned.head.weight is pruned.embedding.weight
    assert pruned.embedding.weight.shape == (20, 30)


def test_ignored_layers_keep_their_channels_with_all_that_is_coupled_to_them():
    model = built("models.py:DigitNet", folder=DIGITS, width=16, blocks=2)
    assert set(by_root(model, ("stem",))) == {"blocks.0.conv1", "blocks.1.conv1"}
    assert set(by_root(model, ("blocks",))) == set()


def test_a_layer_before_sizes_that_the_forward_has_of_its_own_stays_whole():
    model = built("prune_nets.py:FixedView")
    found = couplings(model.module, model.example)
    assert ([group.root for group in found.groups], found.whole) == (["up"], ("qkv",))
    with pytest.raises(StageError, match=r"the pruned model: .* `qkv` cannot be removed; .*`ignore: \[qkv\]`"):
        cut(model.module, model.example, {"qkv": [0], "up": [0]})


def test_of_groups_that_cannot_go_together_only_as_many_stay_as_must(monkeypatch):
    model = built("prune_nets.py:TwoInputs", {"image": torch.rand(2, 1, 8, 8), "token": torch.tensor([1, 2])})
    channels, groups = {"image": [0], "hidden": [1]}, couplings(model.module, model.example).groups
    assert engine.unproven(model.module, model.example, channels, groups) == []
    clashing = {Place("image", "out"), Place("hidden", "out")}
    monkeypatch.setattr(Prover, "can_leave", lambda self, gone: not clashing <= gone.keys())
    assert engine.unproven(model.module, model.example, channels, groups) == ["hidden"]
    monkeypatch.setattr(Prover, "can_leave", lambda self, gone: not gone)
    assert {*engine.unproven(model.module, model.example, channels, groups)} == {*channels}
