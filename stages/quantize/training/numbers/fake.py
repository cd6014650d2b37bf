"""What integers leave of values, differentiable in the values and in the step between two of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

SMALLEST_STEP, LARGEST_STEP = 2.0**-20, 65504.0  # what half precision holds, with a few digits


class _Uniform(Function):
    """step * clamp(round(x / step), low, high), with the gradients of the paper's equations 3 and 5."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.save_for_backward(x, step, low, high)  # not the result: what reads it may change it in place
        return (x / step).round_().clamp_(low, high).mul_(step)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient,) = gradients
        x, step, low, high = ctx.saved_tensors
        scaled = x / step
        inside = (scaled > low) & (scaled < high)
        integers = scaled.round().clamp_(low, high)
        of_step = integers.sub_(scaled.masked_fill_(~inside, 0)).mul_(gradient).sum_to_size(step.shape)
        return torch.where(inside, gradient, gradient.new_zeros(())), of_step, None, None


class _Step(Function):
    """The step whose logarithm is trained, as half precision holds it where asked."""

    @staticmethod
    def forward(ctx: Any, log_step: Tensor, share: float, largest: float, half: bool) -> Tensor:
        step = log_step.exp().clamp(SMALLEST_STEP, largest)
        step = step.half().float() if half else step
        ctx.save_for_backward(step)
        ctx.share = share
        return step

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (step,) = ctx.saved_tensors
        return gradients[0] * ctx.share / step, None, None, None


def uniform(x: Tensor, step: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The values that `step * q` has for the nearest integer q from low to high, halves to the even one.

    The gradient of x passes where x lies inside the range; that of the step is the rounding error there, and low or
    high outside.

    Args:
        x: of any shape.
        step: above 0; broadcast against x.
        low, high: scalars, the least and the largest integer, without a zero point.

    Reference:
        S. Esser, J. McKinstry, D. Bablani, R. Appuswamy, D. Modha, "Learned Step Size Quantization", 2020,
        arXiv:1902.08153, equations 1 to 3 and 5.
    """
    result: Tensor = _Uniform.apply(x, step, low, high)  # type: ignore[no-untyped-call]
    return result


def nearest(x: Tensor, step: Tensor, levels: Tensor) -> Tensor:
    """The values that `step * q` has for the nearest q of `levels`; gradients as in `uniform`, and to the levels.

    Args:
        x: of any shape.
        step: above 0; broadcast against x.
        levels: (K,), integers in rising order.
    """
    scaled = x / step
    inside = torch.minimum(torch.maximum(scaled, levels[0].detach()), levels[-1].detach())
    codes = levels[places(scaled.detach(), levels.detach())]
    return (codes + (inside - inside.detach())) * step


def places(scaled: Tensor, levels: Tensor) -> Tensor:
    """For each value the place of the nearest of the levels, which rise."""
    return torch.bucketize(scaled.contiguous(), (levels[1:] + levels[:-1]) / 2)


def rounded(x: Tensor) -> Tensor:
    """The nearest integers, with the gradient passed on."""
    return x.round().detach() + (x - x.detach())


def step_of(log_step: Tensor, share: float, largest: float = LARGEST_STEP, *, half: bool = True) -> Tensor:
    """The step whose logarithm is trained, rounded to half precision where asked, so that 16 bits hold it without loss.

    The logarithm's gradient is the step's, times `share`, divided by the step: so plain gradient descent moves the step
    as if it were the parameter, and Adam moves it by a share of itself and not by the learning rate.

    Args:
        log_step: of any shape.
        share: the paper's scale of the gradient, 1 / sqrt(values * largest integer).
        largest: that the step may be.
        half: whether to round it. Steps of values are not: with few digits in all steps, products and sums would often
            lie exactly between two integers, where runtimes go different ways.

    Reference:
        Esser et al., arXiv:1902.08153, section 2.2.
    """
    result: Tensor = _Step.apply(log_step, share, largest, half)  # type: ignore[no-untyped-call]
    return result


def least_error(x: Tensor, steps: Tensor, quantized: Callable[[Tensor], Tensor]) -> Tensor:
    """Of several steps for each channel the one with the least squared error.

    Args:
        x: (channels, values).
        steps: (candidates, channels).
        quantized: step (channels, 1) -> what is left of x.
    """
    errors = torch.stack([(quantized(step[:, None]) - x).square().sum(1) for step in steps])
    return steps.gather(0, errors.argmin(0, keepdim=True))[0]
