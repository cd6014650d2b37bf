"""Plain layers in the place of those that keep weights of their own, and what stays."""

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from pipeline.errors import StageError
from pipeline.run.roundtrip import save_exactly
from stages.prune.attention.attention import Attention
from stages.prune.attention.plain import compound, plain, with_plain_attention
from tests.stages.prune.prune_nets import HERE, built


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
    other = plain(copy.deepcopy(net), ["0"])
    assert type(other[0]) is nn.Linear
    assert torch.allclose(other(x), net(x), atol=1e-6)
    assert (other[0].weight.requires_grad, other[0].bias.requires_grad) == (False, True)


def test_what_adds_keys_or_shares_weights_stays():
    shared = nn.MultiheadAttention(8, 2)
    net = nn.ModuleDict(
        {"a": nn.MultiheadAttention(8, 2, add_bias_kv=True), "b": shared, "c": shared, "d": Conv1D(4, 4)}
    )
    assert compound(net) == ["d"]


def test_an_edit_of_another_model_is_refused():
    with pytest.raises(StageError, match="the module has no attention `0`"):
        plain(nn.Sequential(nn.Linear(2, 2)), ["0"])
