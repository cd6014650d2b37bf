"""Plain layers in the place of those that keep weights of their own, and what stays."""

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from pipeline.base.use import Reference
from pipeline.errors import StageError
from pipeline.model import TorchModel
from pipeline.run.roundtrip import save_exactly
from stages.prune.attention.attention import Attention
from stages.prune.attention.plain import compound, plain, with_plain_attention
from stages.prune.weights import WeightPruning
from stages.trainer.zeros import held, hold
from tests.stages.prune.prune_nets import HERE, built, context


def test_the_model_gives_the_same_and_is_saved(tmp_path):
    model, notes = built("transformer_nets.py:Encoder"), []
    other = with_plain_attention(model, notes.append)
    assert isinstance(other.module.encoder.layers[1].self_attn, Attention)
    assert torch.allclose(other.predict(model.example)["output"], model.predict(model.example)["output"], atol=1e-5)
    assert "of 2 layers (`encoder.layers.0.self_attn`, `encoder.layers.1.self_attn`)" in notes[0]
    save_exactly(other, tmp_path / "saved", HERE)
    assert with_plain_attention(other, notes.append) is other


def test_conv1d_becomes_a_linear_layer():
    torch.manual_seed(0)
    net, x = nn.Sequential(Conv1D(6, 4)), torch.randn(3, 5, 4)
    net[0].weight.requires_grad_(False)
    other = plain(hold(copy.deepcopy(net), ["0.weight"]), ["0"])
    assert type(other[0]) is nn.Linear
    assert torch.allclose(other(x), net(x), atol=1e-6)
    assert (other[0].weight.requires_grad, other[0].bias.requires_grad) == (False, True)
    assert [*held(other)] == ["0.weight"]


def test_what_adds_keys_or_shares_weights_stays():
    shared = nn.MultiheadAttention(8, 2)
    net = nn.ModuleDict(
        {"a": nn.MultiheadAttention(8, 2, add_bias_kv=True), "b": shared, "c": shared, "d": Conv1D(4, 4)}
    )
    assert compound(net) == ["d"]


def test_a_convolution_of_that_name_is_no_linear_layer():
    own = type("Conv1D", (nn.Conv1d,), {})
    assert compound(nn.Sequential(own(4, 6, 3), Conv1D(4, 4))) == ["1"]


class Reading(nn.Module):
    """Two attentions, of one of which it reads an attribute that plain layers do not have."""

    def __init__(self):
        super().__init__()
        self.one, self.two = (nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2))

    def forward(self, x):
        x = self.one(x, x, x)[0] / self.one.embed_dim**0.5
        return self.two(x, x, x)[0]


def test_what_is_read_past_its_call_stays_and_a_note_says_so():
    notes = []
    model = TorchModel(Reading(), {"input": torch.randn(2, 5, 8)}, Reference(use="none"))
    other = with_plain_attention(model, notes.append).module
    assert (type(other.one), type(other.two)) == (nn.MultiheadAttention, Attention)
    assert "with plain layers there the model gives other values: 1 layer (`one`)" in notes[0]


def test_zeros_of_pruned_weights_are_held_in_plain_layers(tmp_path):
    sparse = WeightPruning(sparsity=0.5, first_last=True).run(
        built("transformer_nets.py:Encoder"), context(tmp_path, {})
    )
    weights = held(with_plain_attention(sparse, lambda text: None).module)
    assert {f"encoder.layers.1.self_attn.{part}_proj.weight" for part in ("q", "k", "v", "out")} <= weights.keys()
    assert all((weight == 0).float().mean() > 0.2 for weight in weights.values())


def test_an_edit_of_another_model_is_refused():
    with pytest.raises(StageError, match="the module has no attention `0`"):
        plain(nn.Sequential(nn.Linear(2, 2)), ["0"])
