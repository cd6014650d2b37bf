"""What factors cannot stand for is seen in the values."""

import torch
from torch import nn

from stages.prune.ranks.proof import unfit
from tests.stages.prune.ranks.rank_nets import Kinds, Masked, Noisy

LAYERS = {f"encoder.layers.{i}.linear{j}": 1 for i in (0, 1) for j in (1, 2)}


def masked(reads):
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    return unfit(Masked(reads).eval(), {"x": torch.rand(2, 6, 32), "mask": mask}, {**LAYERS, "head": 1})


def test_an_encoder_with_padding_runs_plainly_unless_padding_is_read():
    """On nested tensors torch's encoder gives zeros where it is padded, plainly it does not."""
    assert masked(reads=False) == []
    assert set(masked(reads=True)) == set(LAYERS)


def test_layers_whose_weights_are_read_and_those_with_hooks_are_found_among_others():
    names = ["first", "plain", "read", "hooked", "own", "head"]
    example = {"input": torch.rand(2, 1, 8, 8)}
    module = Kinds().eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert set(unfit(module, example, dict.fromkeys(names, 1))) == {"read", "hooked", "own"}
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not module.training


def test_a_training_that_draws_past_torch_is_not_compared():
    assert unfit(Noisy().eval(), {"input": torch.rand(2, 32)}, {"plain": 1}) == []


def test_a_weight_that_training_alone_reads_is_found():
    class Decayed(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain, self.read = nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, x):
            x = self.read(self.plain(x))
            return x + self.read.weight.sum() if self.training else x

    assert unfit(Decayed().eval(), {"input": torch.rand(2, 32)}, {"plain": 1, "read": 1}) == ["read"]


def test_a_model_that_does_not_train_on_two_examples_is_compared_as_it_is_predicted():
    module = nn.Sequential(nn.Linear(32, 32), nn.Flatten(0), nn.Unflatten(0, (1, 64)), nn.BatchNorm1d(64)).eval()
    assert unfit(module, {"input": torch.rand(2, 32)}, {"0": 1}) == []
