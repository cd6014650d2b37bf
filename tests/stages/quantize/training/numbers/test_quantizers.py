import pytest
import torch

from pipeline.errors import StageError
from stages.quantize.training.numbers.quantizers import ActivationQuantizer, WeightQuantizer
from stages.quantize.training.numbers.schemes import Scheme, count

WEIGHT = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.1
SCHEMES: list[Scheme] = [8, 4, 3, 2, "ternary", "codebook16", "apot4"]


def started(scheme: Scheme, weight: torch.Tensor = WEIGHT, axis: int = 0) -> WeightQuantizer:
    quantizer = WeightQuantizer(tuple(weight.shape), axis, scheme)
    quantizer.start(weight)
    return quantizer


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_left_of_a_weight_is_its_integers_times_the_steps(scheme: Scheme, axis: int) -> None:
    quantizer = started(scheme, axis=axis)
    integers = quantizer.integers(WEIGHT)
    assert integers.codes.dtype == torch.int8
    assert len(integers.codes.unique()) <= count(scheme)
    shape = [-1 if i == axis else 1 for i in range(4)]
    assert torch.equal(quantizer(WEIGHT), integers.codes.float() * integers.step.view(shape))
    assert torch.equal(integers.step, integers.step.half().float())


def test_more_integers_leave_more_and_the_start_is_better_than_the_whole_range() -> None:
    errors = {scheme: float((started(scheme)(WEIGHT) - WEIGHT).square().mean()) for scheme in SCHEMES}
    assert errors[8] < errors["codebook16"] < errors[4] < errors[3] < errors["ternary"]
    whole = WEIGHT.abs().amax((1, 2, 3), keepdim=True) / 7
    plain = (WEIGHT / whole).round().clamp(-8, 7) * whole
    assert errors[4] < float((plain - WEIGHT).square().mean())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pruned_weights_are_zero_and_get_no_gradient(scheme: Scheme) -> None:
    weight = torch.where(WEIGHT.abs() < 0.05, 0.0, WEIGHT).requires_grad_()
    quantized = started(scheme, weight.detach())(weight)
    assert (quantized[weight == 0] == 0).all()
    (quantized - 1).square().sum().backward()
    assert weight.grad is not None
    assert (weight.grad[weight == 0] == 0).all()
    assert (weight.grad[weight != 0] != 0).any()


def test_a_codebook_begins_with_the_centres_of_the_weights_and_has_a_zero() -> None:
    centres = torch.tensor([-0.8, -0.3, 0.4, 1.0])
    weight = centres[torch.arange(400) % 4] + torch.randn(400, generator=torch.Generator().manual_seed(0)) * 0.002
    quantizer = started("codebook5", weight.view(1, 400))
    levels = quantizer._levels() * quantizer.step
    assert sorted(levels.tolist()) == pytest.approx([-0.8, -0.3, 0.0, 0.4, 1.0], abs=0.01)


def test_a_codebook_is_trained_and_stays_integer() -> None:
    quantizer = started("codebook8")
    optimizer = torch.optim.Adam(quantizer.parameters(), 1e-2)
    before = quantizer._levels().clone()
    for _ in range(20):
        optimizer.zero_grad()
        (quantizer(WEIGHT) - 1.5 * WEIGHT).square().sum().backward()
        optimizer.step()
    after = quantizer._levels()
    assert not torch.equal(before, after)
    assert torch.equal(after, after.round())
    assert after.abs().max() <= 127


def test_a_channel_of_zeros_and_tiny_ones_do_no_harm() -> None:
    weight = WEIGHT.clone()
    weight[0], weight[1] = 0, 1e-12
    for scheme in SCHEMES:
        quantized = started(scheme, weight)(weight)
        assert torch.isfinite(quantized).all()
        assert (quantized[:2] == 0).all()


def test_a_weight_of_another_shape_is_refused() -> None:
    with pytest.raises(StageError, match="Prune before"):
        started(8)(WEIGHT[:5])


@pytest.mark.parametrize(("signed", "low", "high"), [(False, -1.0, 3.0), (True, -1.0, 3.0), (False, 0.0, 2.0)])
def test_activations_are_what_torchs_fake_quantization_gives(signed: bool, low: float, high: float) -> None:
    quantizer = ActivationQuantizer(signed)
    quantizer.start(low, high)
    x = torch.randn(4, 100) * 2
    ends = (-128, 127) if signed else (0, 255)
    theirs = torch.fake_quantize_per_tensor_affine(x, float(quantizer.step), int(quantizer.zero_point), *ends)
    torch.testing.assert_close(quantizer(x), theirs, rtol=0, atol=float(quantizer.step) * 1.01)
    assert float(((quantizer(x) - theirs).abs() > 1e-6).float().mean()) < 0.01
    assert quantizer(torch.tensor([[0.0]])).item() == 0
    if low == 0:
        assert int(quantizer.zero_point) == ends[0]


def test_behind_a_clip_no_value_is_above_it() -> None:
    quantizer = ActivationQuantizer(False, 6.0)
    quantizer.start(0.0, 50.0)
    assert 5.9 < float(quantizer(torch.tensor([[100.0]]))) <= 6.0
