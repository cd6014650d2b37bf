"""How sure a classifier is of its answers, whether it may be, and how two sets of answers differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.float64]

BINS = 15
FEWEST = 5  # expected answers of a class, for the chi-square test


@dataclass(frozen=True)
class Sureness:
    """Of each answer (M,): target and predicted class, its probability, entropy in nats as it is and softened."""

    targets: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: Numbers
    entropy: Numbers
    softened: Numbers
    classes: int

    @property
    def right(self) -> Numbers:
        """1 where the prediction is the target, else 0."""
        return np.where(self.predicted == self.targets, 1.0, 0.0)

    @property
    def gap(self) -> float:
        """How far the mean confidence is above the accuracy."""
        return float(self.confidence.mean() - self.right.mean())


def sureness(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Sureness:
    """How sure a teacher is, from logits (M, C) and class numbers (M,), as it is and at a temperature."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    confidence, predicted = logits.softmax(-1).max(-1)
    return Sureness(
        targets=targets.numpy(),
        predicted=predicted.numpy(),
        confidence=confidence.double().numpy(),
        entropy=entropy(logits).double().numpy(),
        softened=entropy(logits / temperature).double().numpy(),
        classes=int(logits.shape[-1]),
    )


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats (M,) of the distributions that logits (M, C) stand for."""
    shares = logits.softmax(-1)
    return -torch.xlogy(shares, shares).sum(-1)


def calibration_error(confidence: Numbers, right: Numbers, bins: int = BINS) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy over bins of equal width.

    Args:
        confidence: (M,), probability of the predicted class, 0 to 1.
        right: (M,), 1 where the prediction is right, else 0.
        bins: how many; a bin has its upper end.

    Reference:
        Guo, Pleiss, Sun and Weinberger: On Calibration of Modern Neural Networks, 2017, 1706.04599, equation 3.
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    sums = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(sums).sum() / len(confidence))


class Shift(NamedTuple):
    """How far apart two splits are: the effect, a distance of distributions, and the p value that they are alike."""

    effect: float = 0.0
    distance: float = 0.0
    p: float | None = None


def confidence_shift(train: Sureness, validation: Sureness) -> Shift:
    """How the confidence in right answers differs: by the means, and by the test of Kolmogorov and Smirnov.

    Right answers alone, because a teacher is surer of what it has seen: overfitting shows in wrong answers first, and
    what is right stays sure. Data of another kind make right answers unsure as well.
    """
    first, second = (sure.confidence[sure.right > 0] for sure in (train, validation))
    if not len(first) or not len(second):
        return Shift()
    test = scipy.stats.ks_2samp(first, second, method="asymp")
    return Shift(float(abs(first.mean() - second.mean())), float(test.statistic), float(test.pvalue))


def prediction_shift(train: Sureness, validation: Sureness) -> Shift:
    """How the predicted classes differ: total variation distance of their shares, and a chi-square test.

    Classes too rare for the test, with less than 5 expected answers in a split, are taken together.
    """
    counts = np.stack([np.bincount(s.predicted, minlength=s.classes) for s in (train, validation)]).astype(float)
    sizes = counts.sum(1)
    distance = float(np.abs(counts[0] / sizes[0] - counts[1] / sizes[1]).sum() / 2)
    rare = counts.sum(0) * sizes.min() / sizes.sum() < FEWEST
    table = np.column_stack([counts[:, ~rare], counts[:, rare].sum(1)])
    table = table[:, table.sum(0) > 0]
    p = float(scipy.stats.chi2_contingency(table, correction=False).pvalue) if table.shape[1] > 1 else None
    return Shift(distance, distance, p)


def joined(parts: Sequence[Sureness | None]) -> Sureness | None:
    """The parts as one; None where there is nothing, or one could not be told."""
    known_parts = [part for part in parts if part]
    if len(known_parts) < len(parts) or not sum(len(part.targets) for part in known_parts):
        return None
    names = ("targets", "predicted", "confidence", "entropy", "softened")
    columns = {name: np.concatenate([getattr(part, name) for part in known_parts]) for name in names}
    return Sureness(**columns, classes=known_parts[0].classes)
