"""Which layers can be factorized, what that costs, and why others stay."""

import pytest
import torch
from torch import nn

from pipeline.base.use import Reference
from pipeline.measure.cost import torch_macs, torch_params
from pipeline.model import TorchModel
from stages.prune.ranks.factors import factorized
from stages.prune.ranks.layers import GROUPED, READ, TIED, UNREACHED, find
from tests.stages.prune.prune_nets import HERE, built
from tests.stages.prune.ranks.rank_nets import Shared


def model_of(module, *shape):
    return TorchModel(module, {"input": torch.rand(2, *shape)}, Reference(use="none"))


@pytest.mark.parametrize(("layer", "method", "ranks"), [
    (nn.Conv2d(12, 16, 3, 2, 1), "tucker", (3, 5)),
    (nn.Conv2d(12, 16, 3, 2, 1), "spatial", (7,)),
    (nn.Conv2d(12, 16, (5, 1), (1, 2), 2), "tucker", (4, 4)),
    (nn.Conv2d(12, 16, 1, 2), "tucker", (3,)),
    (nn.Linear(9, 16), "tucker", (4,)),
])  # fmt: skip
def test_the_costs_are_those_of_the_model_with_factors(layer, method, ranks):
    module = nn.Sequential(nn.ReLU(), layer, nn.ReLU())
    model = model_of(module, 12, 10, 9)
    (one,) = find(model, (), method).layers
    before = torch_params(module), torch_macs(module, model.example)
    cost = [*map(int, one.costs(torch.tensor([ranks]))[0])]
    factorized(module, {"1": ranks})
    after = torch_params(module), torch_macs(module, model.example)
    assert [b - a for b, a in zip(before, after, strict=True)] == [w - c for w, c in zip(one.whole, cost, strict=True)]
    assert before[1] == one.whole.macs


def test_ranks_that_make_it_smaller_are_offered():
    (one,) = find(model_of(nn.Sequential(nn.Linear(24, 40)), 24), (), "tucker").layers
    assert one.choices(4).flatten().tolist() == [4, 8, 12]  # 15 * 64 = 24 * 40
    assert one.largest() == 14
    assert one.equal(99) == (24,)
    (one,) = find(model_of(nn.Sequential(nn.Conv2d(2, 32, 3)), 2, 9, 9), (), "tucker").layers
    assert one.equal(16) == (2, 16)
    assert all(outer <= 9 * inner for inner, outer in one.choices(1).tolist())


def test_what_stays_is_told_with_the_reason():
    layers, stay = find(built("ranks/rank_nets.py:Kinds"), (), "tucker")
    assert [layer.name for layer in layers] == ["first", "plain", "head"]
    assert stay == {
        TIED: ["tied", "other"],
        GROUPED: ["grouped", "transposed"],
        UNREACHED: ["attention.out_proj", "auxiliary"],
        READ: ["read", "hooked", "own"],
    }
    assert [layer.name for layer in find(built("ranks/rank_nets.py:Kinds"), ("plain",), "tucker").layers] == [
        "first", "head"
    ]  # fmt: skip


def test_a_layer_by_two_names_stays_and_one_that_runs_twice_costs_twice():
    layers, stay = find(model_of(Shared(), 32), (), "tucker")
    assert stay == {TIED: ["one"]}
    assert [(layer.name, layer.whole) for layer in layers] == [("twice", (1024, 2048))]


def test_feed_forward_layers_of_torchs_encoder_can_be_factorized():
    layers, _ = find(built("prune_nets.py:Encoder", folder=HERE), (), "tucker")
    assert {layer.name for layer in layers} >= {"encoder.layers.0.linear1", "encoder.layers.1.linear2"}
