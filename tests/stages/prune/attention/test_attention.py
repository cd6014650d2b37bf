"""Attention of plain layers against torch's own, with every mask and form that this takes."""

import pytest
import torch
from torch import nn

from stages.prune.attention.attention import Attention
from stages.trainer.zeros import held, hold

PADDING = torch.tensor([[False, False, True, False, True], [False, True, False, False, False]])
ADDED = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
BY_HEAD = torch.randn(2 * 4, 6, 5, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("masks", [
    {},
    {"key_padding_mask": PADDING},
    {"attn_mask": ADDED},
    {"attn_mask": ADDED > 1},
    {"attn_mask": BY_HEAD},
    {"attn_mask": ADDED, "key_padding_mask": torch.zeros(2, 5).masked_fill(PADDING, -9.0)},
])  # fmt: skip
@pytest.mark.parametrize("form", [
    {}, {"batch_first": True, "bias": False}, {"kdim": 8, "vdim": 12, "batch_first": True}
])  # fmt: skip
def test_it_gives_what_torch_gives(masks, form):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(16, 4, **form).eval()
    nn.init.normal_(layer.out_proj.weight)
    inputs = [torch.randn(2, n, width) for n, width in ((6, 16), (5, layer.kdim), (5, layer.vdim))]
    inputs = inputs if layer.batch_first else [x.transpose(0, 1) for x in inputs]
    own = Attention.of(layer)
    for extra in ({}, {"need_weights": False}, {"average_attn_weights": False}):
        before, after = layer(*inputs, **masks, **extra), own(*inputs, **masks, **extra)
        assert torch.allclose(after[0], before[0], atol=1e-5)
        assert after[1] is before[1] is None or torch.allclose(after[1], before[1], atol=1e-5)


def test_it_takes_one_example_without_a_batch():
    layer, x = nn.MultiheadAttention(16, 4).eval(), torch.randn(6, 16)
    before, after = (
        layer(x, x, x, PADDING[0, [0, 1, 2, 3, 4, 0]]),
        Attention.of(layer)(x, x, x, PADDING[0, [0, 1, 2, 3, 4, 0]]),
    )
    assert torch.allclose(after[0], before[0], atol=1e-5)
    assert torch.allclose(after[1], before[1], atol=1e-5)


@pytest.mark.parametrize(("form", "marked", "expected"), [
    ({}, ["in_proj_weight"], {"q_proj.weight", "k_proj.weight", "v_proj.weight"}),
    ({}, ["out_proj.weight", "in_proj_bias"], {"q_proj.bias", "k_proj.bias", "v_proj.bias", "out_proj.weight"}),
    ({"kdim": 8}, ["k_proj_weight"], {"k_proj.weight"}),
    ({}, [], set()),
])  # fmt: skip
def test_zeros_that_are_held_stay_so(form, marked, expected):
    layer = hold(nn.MultiheadAttention(16, 4, **form), marked)
    own = Attention.of(layer)
    assert {*held(own)} == expected
    assert {*held(layer)} == {*marked}
