"""The edit: a difference in structure, applied to a fresh module."""

import copy
import json

import pytest
import torch
from torch import nn

from pipeline.errors import StageError
from stages.prune.reshape import difference, reshape
from tests.stages.prune.prune_nets import PlainNet, Tied


def shapes(module: nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in module.state_dict().items()}


def test_no_difference_between_equal_structures():
    assert difference(PlainNet(), PlainNet()) == {}


def test_reshape_undoes_the_difference_and_survives_json():
    before, after = PlainNet(16, 32), PlainNet(5, 11)
    made = reshape(before, json.loads(json.dumps(difference(before, after))))
    assert shapes(made) == shapes(after)
    assert difference(made, after) == {}
    assert (made.one.out_channels, made.two.in_channels, made.head.in_features) == (5, 5, 44)
    made.load_state_dict(after.state_dict())
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(made(x), after(x))


def test_normalized_shape_stays_a_tuple_and_buffers_follow():
    before = nn.Sequential(nn.LayerNorm(8), nn.BatchNorm1d(8, affine=False), nn.Conv1d(8, 8, 1, groups=8))
    after = nn.Sequential(nn.LayerNorm(6), nn.BatchNorm1d(6, affine=False), nn.Conv1d(6, 6, 1, groups=6))
    made = reshape(before, difference(before, after))
    assert (made[0].normalized_shape, list(made[1].running_mean.shape), made[2].groups) == ((6,), [6], 6)
    assert "1.running_mean" in made.state_dict()


def test_tied_parameters_stay_one_and_frozen_ones_frozen():
    before, after = Tied(), Tied()
    after.embedding.weight = after.head.weight = nn.Parameter(torch.zeros(20, 24))
    before.embedding.weight.requires_grad_(False)
    made = reshape(copy.deepcopy(before), difference(before, after))
    assert made.head.weight is made.embedding.weight
    assert not made.head.weight.requires_grad


def test_tied_parameters_cannot_come_apart():
    after = Tied()
    after.head.weight = nn.Parameter(torch.zeros(20, 24))
    after.embedding.weight = nn.Parameter(torch.zeros(20, 25))
    with pytest.raises(StageError, match="is tied to a tensor of shape"):
        reshape(Tied(), difference(Tied(), after))


def test_names_that_are_not_there_are_refused():
    with pytest.raises(StageError, match="no submodule `three`"):
        reshape(PlainNet(), {"three": {"shapes": {}, "sizes": {}}})
    with pytest.raises(StageError, match="`one` has no tensor `gain`"):
        reshape(PlainNet(), {"one": {"shapes": {"gain": [3]}, "sizes": {}}})
    with pytest.raises(StageError, match="in one module only"):
        difference(PlainNet(), Tied())
