"""The parts of a network that hold steps and zero points, and quantize its weights and activations with them."""

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from stages.quantize.rounding.codes import codebook
from stages.quantize.training.numbers.fake import (
    LARGEST_STEP,
    SMALLEST_STEP,
    least_error,
    nearest,
    rounded,
    step_of,
    uniform,
)
from stages.quantize.training.numbers.schemes import LARGEST, Scheme, codebook_size, is_uniform, levels

CLIPPED = torch.linspace(0.3, 1.0, 36)
"""Shares of the largest weight of a channel that its range may end at."""
NEAR = torch.linspace(0.8, 1.2, 21)
"""Factors that a step is tried with once its codebook is there."""
ALTERNATIONS = 3  # of k-means and the steps


class Integers(NamedTuple):
    """A weight as integers, and what they are multiplied with along an axis."""

    codes: Tensor
    step: Tensor
    axis: int


class WeightQuantizer(nn.Module):
    """Fake quantization of one weight, with a step for each channel.

    Weights that are exactly zero, as pruned ones are, get no gradient, so that they stay zero.

    Args:
        shape: of the weight.
        axis: its channels.
        scheme: which integers it may take.
    """

    fixed: Tensor
    is_aside = True
    """Its parameters say how weights are stored; they are none of the network's."""

    def __init__(self, shape: tuple[int, ...], axis: int, scheme: Scheme) -> None:
        super().__init__()
        self.axis, self.scheme, self.shape = axis, scheme, tuple(shape)
        self.log_step = nn.Parameter(torch.zeros(shape[axis]))
        if size := codebook_size(scheme):
            self.values = nn.Parameter(torch.linspace(-1, 1, size - 1))
        else:
            self.register_buffer("fixed", levels(scheme), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        """What the integers leave of the weight. Raises StageError where its shape is another one."""
        if weight.shape != self.shape:
            problem = f"a weight of shape {tuple(weight.shape)} was quantized with shape {self.shape}"
            raise StageError(problem, fix="Prune before quantize.aware, not after it")
        free = torch.where(weight == 0, weight.detach(), weight)
        return self._quantized(free.float(), self._along(self.step))

    def start(self, weight: Tensor) -> None:
        """Begin with the steps, and the codebook, of the least squared error."""
        rows = weight.detach().float().movedim(self.axis, 0).flatten(1)
        largest = rows.abs().amax(1)
        largest = largest.clamp(min=max(float(largest.max()) * 1e-4, SMALLEST_STEP * LARGEST))
        steps = largest / self._levels()[-1].detach()
        if codebook_size(self.scheme):
            self._set(steps)
            for _ in range(ALTERNATIONS):
                self.values.data = _others(rows / self.step.detach()[:, None], self.values.numel()) / LARGEST
                self._set(least_error(rows, NEAR[:, None] * self.step, lambda step: self._quantized(rows, step)))
        else:
            self._set(least_error(rows, CLIPPED[:, None] * steps, lambda step: self._quantized(rows, step)))

    def integers(self, weight: Tensor) -> Integers:
        """The weight as it is deployed: int8, and the step of each channel."""
        with torch.no_grad():
            values, step = self(weight), self.step
            return Integers((values / self._along(step)).round().to(torch.int8), step, self.axis)

    @property
    def step(self) -> Tensor:
        """For each channel: (channels,)."""
        values = prod(self.shape) / self.shape[self.axis]
        highest = float(LARGEST if codebook_size(self.scheme) else self.fixed[-1])
        return step_of(self.log_step, (values * highest) ** -0.5)

    def _levels(self) -> Tensor:
        if not codebook_size(self.scheme):
            return self.fixed
        values = rounded((self.values * LARGEST).clamp(-LARGEST, LARGEST))
        return torch.cat([values.new_zeros(1), values]).sort().values

    def _quantized(self, weight: Tensor, step: Tensor) -> Tensor:
        integers = self._levels()
        if is_uniform(self.scheme):
            return uniform(weight, step, integers[0], integers[-1])
        return nearest(weight, step, integers)

    def _along(self, step: Tensor) -> Tensor:
        return step.view([-1 if axis == self.axis else 1 for axis in range(len(self.shape))])

    def _set(self, steps: Tensor) -> None:
        self.log_step.data = steps.log()


class ActivationQuantizer(nn.Module):
    """Fake quantization of one value inside a network to 8 bits, with one step and a fixed zero point.

    Args:
        signed: whether the integers are int8; else uint8.
        largest: the largest value that there is, behind a clip; None for any.
    """

    is_aside = True
    zero_point: Tensor

    def __init__(self, signed: bool, largest: float | None = None) -> None:
        super().__init__()
        self.dtype = torch.int8 if signed else torch.uint8
        info = torch.iinfo(self.dtype)
        self.low, self.high = info.min, info.max
        self.most = _half_below(largest / (info.max - info.min)) if largest else LARGEST_STEP
        self.log_step = nn.Parameter(torch.zeros(()))
        self.register_buffer("zero_point", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """What 8 bits leave of the values (N, ...)."""
        values = x[:1].numel() * float(self.high - self.low)
        low, high = self.low - self.zero_point, self.high - self.zero_point
        step = step_of(self.log_step, max(values, 1.0) ** -0.5, self.most, half=False)
        return uniform(x.float(), step, low, high)

    def start(self, lowest: float, highest: float) -> None:
        """Begin with the range from the lowest to the highest value, zero among them."""
        step = max((max(highest, 0.0) - min(lowest, 0.0)) / (self.high - self.low), SMALLEST_STEP)
        self.log_step.data.fill_(min(step, self.most)).log_()
        zero = self.low if lowest >= 0 else self.low - lowest / float(self.step)
        self.zero_point.fill_(round(min(max(zero, self.low), self.high)))

    @property
    def step(self) -> Tensor:
        """The step, a scalar without a gradient."""
        return step_of(self.log_step.detach(), 1.0, self.most, half=False)


def _others(values: Tensor, count: int) -> Tensor:
    """Integers (count,) that together with 0 have the least squared distance to the nearest of them."""
    with_zero = torch.cat([values.flatten(), values.new_zeros(1)])
    chosen = torch.from_numpy(codebook(with_zero.numpy(), count + 1)).float()
    others = chosen[chosen != 0]
    return torch.cat([others, others.new_zeros(count - len(others))])


def _half_below(value: float) -> float:
    """The largest number of half precision that is not above a value."""
    half = torch.tensor(value).half()
    return float(torch.nextafter(half, half.new_zeros(())) if half > value else half)
