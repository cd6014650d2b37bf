"""Ranges of activations to begin with, from what they are on calibration data."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.model import call
from pipeline.task import Batch
from stages.quantize.training.module import FakeQuantization, observed
from stages.quantize.training.numbers.quantizers import ActivationQuantizer

Calibration = Literal["mse", "percentile", "minmax"]
SAMPLES, BATCHES = 2**14, 64  # values of a batch that are kept of each, and of how many batches
SHARES = torch.linspace(0.1, 1.0, 46)
"""Of the whole range, those that are tried for the least squared error."""


class Seen:
    """The range and some of the values that one quantizer would be given."""

    def __init__(self) -> None:
        self.lowest, self.highest = 0.0, 0.0
        self.samples: list[Tensor] = []

    def add(self, value: Tensor) -> None:
        """Take in a batch of values."""
        flat = value.detach().float().flatten()
        self.lowest, self.highest = min(self.lowest, float(flat.min())), max(self.highest, float(flat.max()))
        if len(self.samples) < BATCHES:
            self.samples.append(flat[:: max(len(flat) // SAMPLES, 1)].cpu())

    def range(self, calibration: Calibration, percentile: float, quantizer: ActivationQuantizer) -> tuple[float, float]:
        """The lowest and the highest value that 8 bits shall hold."""
        if calibration == "minmax":
            return self.lowest, self.highest
        values = torch.cat(self.samples)
        if calibration == "percentile":
            low, high = (float(values.double().quantile(q)) for q in (1 - percentile / 100, percentile / 100))
            return min(low, 0.0), max(high, 0.0)
        errors = []
        for share in SHARES.tolist():
            quantizer.start(self.lowest * share, self.highest * share)
            with torch.no_grad():
                errors.append(float((quantizer(values) - values).square().sum()))
        best = float(SHARES[min(range(len(errors)), key=errors.__getitem__)])
        return self.lowest * best, self.highest * best


def calibrate(
    module: nn.Module, part: FakeQuantization, batches: Iterable[Batch], calibration: Calibration, percentile: float
) -> None:
    """Have every quantizer of activations begin with its range on calibration data.

    Args:
        module: the quantized one; it computes in floats here.
        part: its quantizers; they are changed.
        batches: of calibration data.
        calibration: how ranges are chosen of what was seen.
        percentile: of the values inside the range, for that method.

    Raises:
        StageError: there are no examples, or values that are not finite.
    """
    quantizers = [part.of_activation(number) for number in range(len(part.activations))]
    seen = [Seen() for _ in quantizers]

    def look(number: int, value: Tensor) -> None:
        if not torch.isfinite(value).all():
            fix = "Look for NaN and infinity in the calibration data, and for what divides by zero"
            raise StageError("a value inside the model is not finite on calibration data", fix=fix)
        seen[number].add(value)

    with observed(module, look), torch.no_grad():
        for batch in batches:
            call(module, batch.inputs)
    for quantizer, values in zip(quantizers, seen, strict=True):
        if not values.samples:
            raise StageError("there is no calibration example", expected="typical inputs, 100 or more")
        quantizer.start(*values.range(calibration, percentile, quantizer))
