"""Layers are seen where PyTorch would take a path that calls none of them, and the process stays as it was."""

import pytest
import torch
from torch import nn

from stages.kd.inspection.hooks import Hook, Hooks


def test_layers_of_an_encoder_are_seen_and_its_fast_path_is_off_during_the_forward_alone() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    x, padding = torch.rand(3, 4, 8), torch.zeros(3, 4, dtype=torch.bool)
    padding[0, 2:] = True
    watching = [Hooks(encoder, [Hook("layers.0"), Hook("layers.1.linear1")]), Hooks(encoder, [Hook("layers.1")])]
    states = list[bool]()
    encoder.layers[0].register_forward_hook(lambda *_: states.append(torch.backends.mha.get_fastpath_enabled()))
    with torch.no_grad():
        output = encoder(x, src_key_padding_mask=padding)
    assert torch.equal(watching[1].take()[0], output)
    assert [tuple(value.shape) for value in watching[0].take()] == [(3, 4, 8), (3, 4, 16)]
    assert not any(states)
    assert torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(AssertionError, match="embedding dimension of 8"):
        encoder(torch.rand(3, 4, 7))
    assert torch.backends.mha.get_fastpath_enabled()
    for hooks in watching:
        hooks.remove()
    encoder(x)
    assert states[1:] == [True]
