import numpy as np
import pytest
import torch

from stages.quantize.training.numbers.fake import nearest, rounded, step_of, uniform

LOW, HIGH = torch.tensor(-4.0), torch.tensor(3.0)


def test_values_are_those_of_torchs_own_fake_quantization() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 3
    ours = uniform(x, torch.tensor(0.25), torch.tensor(-128.0 + 7), torch.tensor(127.0 + 7))
    assert torch.equal(ours, torch.fake_quantize_per_tensor_affine(x, 0.25, -7, -128, 127))


def test_halves_go_to_the_even_integer_as_onnx_rounds_them() -> None:
    x = torch.tensor([0.25, 0.75, 1.25, -0.25, -0.75])
    assert uniform(x, torch.tensor(0.5), LOW, HIGH).tolist() == [0.0, 1.0, 1.0, 0.0, -1.0]


def test_gradients_are_those_of_equations_3_and_5_of_the_paper() -> None:
    values, step = np.random.default_rng(0).normal(size=200).astype(np.float32), np.float32(0.31)
    x, s = torch.tensor(values, requires_grad=True), torch.tensor(step, requires_grad=True)
    weights = torch.linspace(-1, 2, 200)
    (uniform(x, s, LOW, HIGH) * weights).sum().backward()
    ratio = values / step
    of_step = np.where(ratio <= -4, -4, np.where(ratio >= 3, 3, np.round(ratio) - ratio))
    assert x.grad is not None
    assert s.grad is not None
    np.testing.assert_array_equal(x.grad, np.where((ratio > -4) & (ratio < 3), weights.numpy(), 0))
    assert float(s.grad) == pytest.approx(float((of_step * weights.numpy()).sum()), rel=1e-4)


def test_a_step_for_each_channel_gets_the_gradient_of_its_channel() -> None:
    x, step = torch.randn(3, 5), torch.tensor([[0.1], [0.2], [0.3]], requires_grad=True)
    uniform(x, step, LOW, HIGH).sum().backward()
    for row in range(3):
        alone = torch.tensor(float(step[row].detach()), requires_grad=True)
        uniform(x[row], alone, LOW, HIGH).sum().backward()
        assert step.grad is not None
        assert float(step.grad[row]) == pytest.approx(float(alone.grad or 0), rel=1e-5)


def test_levels_in_even_distances_are_the_uniform_grid_with_its_gradients() -> None:
    levels = torch.arange(-4.0, 4.0)
    x = torch.randn(300, generator=torch.Generator().manual_seed(1))
    values, gradients = [], []
    for quantized in (lambda x, s: uniform(x, s, LOW, HIGH), lambda x, s: nearest(x, s, levels)):
        inputs = (x.clone().requires_grad_(), torch.tensor(0.3, requires_grad=True))
        values.append(quantized(*inputs))
        gradients.append(torch.autograd.grad((values[-1] ** 2).sum(), inputs))
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


def test_a_level_gets_the_gradients_of_the_weights_that_take_it() -> None:
    levels = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    nearest(torch.tensor([-0.9, 0.1, 0.2, 1.8]), torch.tensor(0.5), levels).sum().backward()
    assert levels.grad is not None
    assert levels.grad.tolist() == [0.5, 1.0, 0.5]


def test_a_step_is_what_half_precision_holds_and_moves_as_if_it_were_the_parameter() -> None:
    log_step = torch.tensor([-3.0, -5.0], dtype=torch.float64, requires_grad=True)
    step = step_of(log_step, share=0.25)
    assert torch.equal(step, step.half().float())
    assert step.tolist() == pytest.approx(log_step.exp().tolist(), rel=1e-3)
    (step * torch.tensor([2.0, 3.0])).sum().backward()
    moved = (log_step - 1e-5 * (log_step.grad if log_step.grad is not None else 0)).exp() - log_step.exp()
    assert moved.tolist() == pytest.approx([-1e-5 * 0.25 * 2, -1e-5 * 0.25 * 3], rel=2e-2)


def test_a_step_is_no_larger_than_it_may_be_and_never_zero() -> None:
    assert float(step_of(torch.tensor(3.0), 1.0, largest=6 / 256)) == 6 / 256
    assert float(step_of(torch.tensor(-80.0), 1.0)) == 2**-20


def test_rounding_passes_the_gradient_on() -> None:
    x = torch.tensor([0.4, 1.6], requires_grad=True)
    y = rounded(x)
    y.sum().backward()
    assert y.tolist() == [0.0, 2.0]
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0]
