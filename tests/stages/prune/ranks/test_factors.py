"""The edit: plain layers that compute as the one that they stand for, with its type, flags and bias."""

import pytest
import torch
from torch import nn

from pipeline.errors import StageError
from stages.prune.ranks.decomposition import exact
from stages.prune.ranks.factors import factorized, factors, fill

CONVOLUTIONS = [
    ({"kernel_size": 3, "padding": 1, "stride": 2}, (9, 8)),
    ({"kernel_size": (5, 3), "padding": (2, 0), "dilation": (1, 2), "stride": (2, 1)}, (11, 9)),
    ({"kernel_size": 3, "padding": "same", "padding_mode": "reflect", "bias": False}, (7, 7)),
    ({"kernel_size": (1, 3), "padding": (1, 1), "padding_mode": "circular"}, (6, 7)),
    ({"kernel_size": (3, 1), "padding": "valid", "stride": (1, 2)}, (6, 7)),
    ({"kernel_size": 1, "stride": (2, 3), "padding": 1}, (7, 8)),
]


@pytest.mark.parametrize(("settings", "size"), CONVOLUTIONS)
@pytest.mark.parametrize("count", [1, 2])
def test_a_convolution_keeps_its_geometry(settings, size, count):
    layer = nn.Conv2d(4, 6, **settings)
    values = torch.randn(2, 4, *size)
    assert torch.allclose(with_identities(layer, count)(values), layer(values), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("layer", [nn.Conv1d(4, 6, 5, 2, 2), nn.Conv3d(4, 6, (3, 2, 3), (1, 2, 1), 1)])
def test_of_one_and_three_axes(layer, count):
    values = torch.randn(2, 4, *[9] * (layer.weight.ndim - 2))
    assert torch.allclose(with_identities(layer, count)(values), layer(values), atol=1e-6)


def with_identities(layer, count):
    weights = exact(layer.weight, count)
    sequence = factors(layer, [len(w) for w in weights[:-1]])
    fill(sequence, weights)
    return sequence


def test_a_1x1_convolution_strides_before_it_computes():
    first, second = factors(nn.Conv2d(8, 8, 1, stride=(2, 3)), [2])
    assert (first.stride, second.stride) == ((2, 3), (1, 1))
    first, second = factors(nn.Conv2d(8, 8, (3, 5), stride=2, padding=(1, 2)), [2])
    assert (first.kernel_size, first.stride, first.padding) == ((3, 1), (2, 1), (1, 0))
    assert (second.kernel_size, second.stride, second.padding) == ((1, 5), (1, 2), (0, 2))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_type_frozen_weights_mode_and_the_bias_itself_stay(kind):
    module = nn.Sequential(nn.Linear(8, 8).to(kind), nn.Linear(8, 8)).eval()
    module[0].weight.requires_grad_(False)
    bias = module[0].bias
    first, last = factorized(module, {"0": [2]})[0]
    assert (first.weight.dtype, last.weight.dtype) == (kind, kind)
    assert not any(layer.weight.requires_grad or layer.training for layer in (first, last))
    assert last.bias is bias
    assert bias.requires_grad
    assert first.bias is None


def test_encoder_layers_of_torch_run_unfused_where_one_of_their_layers_is_replaced():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    factorized(encoder, {"layers.1.linear1": [4]})
    assert [layer.activation_relu_or_gelu for layer in encoder.layers] == [1, 0]
    assert encoder.use_nested_tensor is False
    with torch.no_grad():
        assert encoder(torch.rand(2, 5, 16)).shape == (2, 5, 16)


@pytest.mark.parametrize("name", ["2", "1"])
def test_what_is_no_layer_of_the_module_is_told(name):
    with pytest.raises(StageError, match=f"the module has no layer `{name}`; expected the module that was factorized"):
        factorized(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), {name: [2]})
