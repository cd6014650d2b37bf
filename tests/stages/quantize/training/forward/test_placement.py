import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from pipeline.model import call
from stages.quantize.training.folding import fold, foldable
from stages.quantize.training.forward.placement import PENDING, Plan, plan_of
from tests.stages.quantize.training.aware_nets import images, model_of

INPUTS = {"input": images(4)}


def planned(name: str, **arguments: int) -> Plan:
    module = model_of(name, **arguments).module
    return plan_of(fold(module, foldable(module, INPUTS)), INPUTS)


def test_a_residual_network_is_quantized_around_convolutions_sums_and_products() -> None:
    plan = planned("Residual")
    calls = [(one.name, one.weights, one.output) for one in plan.calls]
    names = [name for name, _, _ in calls]
    assert names == ["conv2d", "relu6", "conv2d", "relu", "conv2d", "add_", "relu", "linear", "relu", "linear"]
    assert [output for _, _, output in calls] == [PENDING, 1, PENDING, 2, 3, PENDING, 4, PENDING, 6, None]
    assert plan.calls[5].inputs == {0: 3, 1: 1}  # the sum reads the pooled value by the quantizer before the pool
    assert plan.calls[2].inputs == {0: 1}
    assert plan.bounds == (None, 6.0, None, None, None, None, None)
    assert [one.bias for one in plan.calls if one.weights] == [
        "conv1.bias", "conv2.bias", "conv3.bias", "hidden.bias", None,
    ]  # fmt: skip


def test_an_encoder_is_quantized_where_it_multiplies_with_weights() -> None:
    plan = planned("Encoder")
    weights = [one.weights for one in plan.calls]
    layer = "encoder.layers.0"
    assert weights == [
        ("rows.weight",), (f"{layer}.self_attn.in_proj_weight",), (f"{layer}.self_attn.out_proj.weight",),
        (f"{layer}.linear1.weight",), (f"{layer}.linear2.weight",), ("head.weight",),
    ]  # fmt: skip
    assert all(one.output is None and one.bias is None for one in plan.calls)


def test_an_lstm_and_a_table_have_weights_in_integers_alone() -> None:
    (lstm, _) = planned("Recurrent").calls
    assert len(lstm.weights) == 4
    assert not lstm.inputs
    ids = {"input": torch.zeros(4, 3, dtype=torch.long)}
    assert plan_of(model_of("Bag", ids).module, ids).axes == {"table.weight": 1, "head.weight": 0}
    assert plan_of(model_of("Tied", ids).module, ids).axes == {"table.weight": 0}


def test_a_plan_survives_json() -> None:
    plan = planned("Residual")
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


class Apart(nn.Module):
    """A batch norm that reads what another layer reads too, and one that reads no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        self.first, self.last = nn.BatchNorm2d(1), nn.Conv2d(2, 2, 1)
        self.of_last = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.first(x))
        return self.of_last(self.last(y + self.norm(y)))


def test_batch_norms_are_folded_that_alone_read_a_layer() -> None:
    assert foldable(Apart().eval(), INPUTS) == [("last", "of_last")]


def test_folding_leaves_the_outputs() -> None:
    module = model_of("Residual").module
    before = call(module, INPUTS)["output"]
    pairs = foldable(module, INPUTS)
    assert pairs == [("conv1", "norm1"), ("conv2", "norm2"), ("conv3", "norm3")]
    after = call(fold(module, pairs), INPUTS)["output"]
    assert isinstance(module.norm2, nn.Identity)
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-5)


class Standardized(nn.Conv2d):
    """A convolution with a weight that is computed at each call."""

    def forward(self, x: Tensor) -> Tensor:
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, centred / centred.std((1, 2, 3), keepdim=True), self.bias)


@pytest.mark.parametrize("layer", [Standardized(1, 2, 3), weight_norm(nn.Conv2d(1, 2, 3))])
def test_what_computes_its_weight_has_no_batch_norm_folded(layer: nn.Module) -> None:
    assert foldable(nn.Sequential(layer, nn.BatchNorm2d(2)).eval(), INPUTS) == []


def test_a_transposed_convolution_of_groups_keeps_its_batch_norm() -> None:
    layers = [nn.ConvTranspose2d(1, 4, 2), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 4, 2, groups=4), nn.BatchNorm2d(4)]
    assert foldable(nn.Sequential(*layers).eval(), INPUTS) == [("0", "1")]


class Product(nn.Module):
    """A product with a weight of its own, and a ReLU whose result is read as floats."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(64, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x.flatten(1) @ self.weight).sin()


def test_a_product_behind_which_a_relu_stands_is_quantized_with_it() -> None:
    product, clip = plan_of(Product().eval(), INPUTS).calls
    assert (product.name, product.output, clip.name, clip.output) == ("matmul", PENDING, "relu", 1)
