"""Losses and scores of tasks with classes: each leaves out what is ignored."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.batches import Outputs, scored
from pipeline.base.targets.labelling import IGNORED, Labelling, counts, of_classes
from pipeline.errors import ConfigError


def cross_entropy(
    outputs: Outputs,
    targets: Tensor,
    output: str | None = None,
    axis: int | None = None,
    ignore_index: int = IGNORED,
) -> Tensor:
    """Mean cross-entropy of logits against classes, over the positions that count; 0 where none does.

    Args:
        outputs: of the model.
        targets: class numbers (N,) or (N, positions, ...), of any type that holds whole numbers; or a share of each
            class, in the shape of the logits.
        output: which are logits (N, ..., classes, ...); the first unless named.
        axis: that of the classes; told by the shapes unless given.
        ignore_index: the target of positions that do not count.

    Raises:
        ConfigError: the targets fit no axis of the logits.
    """
    logits = scored(outputs, output)
    labelling = of_classes(logits, targets, axis, ignore_index)
    if targets.shape == logits.shape:
        return F.cross_entropy(logits.movedim(labelling.axis, 1), targets.movedim(labelling.axis, 1).to(logits.dtype))
    numbers = _numbers(labelling, logits, targets)
    if not bool((numbers != IGNORED).any()):  # the mean over nothing would be NaN, and so its gradient
        return logits.flatten()[:0].sum()
    return F.cross_entropy(logits.movedim(labelling.axis, 1), numbers, ignore_index=IGNORED)


def correct(predictions: Tensor, targets: Tensor, axis: int | None = None, ignore_index: int = IGNORED) -> Tensor:
    """(N,), the share of an example's positions of which the best class is the target: 1.0 or 0.0 where there is one.

    NaN where none counts: such examples of test and validation are left out before. Of shares the largest is the class.

    Args:
        predictions, targets, axis, ignore_index: as in `cross_entropy`.

    Raises:
        ConfigError: the targets fit no axis of the logits.
    """
    labelling = of_classes(predictions, targets, axis, ignore_index)
    numbers = _numbers(labelling, predictions, targets)
    right = labelling.logits(predictions).argmax(-1) == numbers
    counted = (numbers != IGNORED).reshape(len(numbers), -1)
    return right.reshape(len(right), -1).sum(1).float() / counted.sum(1)


def binary_cross_entropy(
    outputs: Outputs, targets: Tensor, output: str | None = None, ignore_index: int = IGNORED
) -> Tensor:
    """Mean binary cross-entropy of logits (N, labels) or (N,) against 0 and 1, over what counts; 0 where nothing does.

    Args:
        outputs: of the model.
        targets: 0 to 1, in the shape of the logits; (N,) is (N, 1).
        output: which are logits; the first unless named.
        ignore_index: the target that does not count.

    Raises:
        ConfigError: the shapes differ.
    """
    logits = scored(outputs, output)
    labels = _labels(logits, targets)
    counted = counts(labels, ignore_index)
    losses = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype) * counted, reduction="none")
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def jaccard(predictions: Tensor, targets: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """(N,), labels that are predicted and right, over those that are either: 0 to 1, and 1 where there are none.

    Of a single label it is right or wrong. NaN where nothing counts, as in `correct`.

    Args:
        predictions: logits (N, labels) or (N,); above 0 is predicted.
        targets: as in `binary_cross_entropy`.
        ignore_index: the target that does not count.

    Reference:
        Godbole and Sarawagi: Discriminative methods for multi-labeled classification, 2004, accuracy of an example.
    """
    labels = _labels(predictions, targets).reshape(len(predictions), -1)
    counted = counts(labels, ignore_index)
    predicted, wanted = (predictions.reshape(labels.shape) > 0) & counted, (labels > 0.5) & counted
    either, both = (predicted | wanted).sum(1), (predicted & wanted).sum(1)
    single = labels.shape[1] == 1
    shares = (predicted == wanted).all(1).float() if single else torch.where(either > 0, both / either.clamp(min=1), 1)
    return shares.masked_fill(~counted.any(1), torch.nan)


def _numbers(labelling: Labelling, logits: Tensor, targets: Any) -> Tensor:
    numbers = labelling.numbers(logits, targets)
    if numbers is None:
        shape = tuple(targets.shape) if isinstance(targets, Tensor) else f"a {type(targets).__name__}"
        expected = f"class numbers in the shape of the logits {tuple(logits.shape)} without the axis of the classes"
        raise ConfigError(f"the targets are {shape}", expected=expected)
    return numbers


def _labels(logits: Tensor, targets: Any) -> Tensor:
    if not isinstance(targets, Tensor) or targets.numel() != logits.numel() or len(targets) != len(logits):
        shape = tuple(targets.shape) if isinstance(targets, Tensor) else f"a {type(targets).__name__}"
        raise ConfigError(f"the targets are {shape}", expected=f"0 or 1 for each of the logits {tuple(logits.shape)}")
    return targets.reshape(logits.shape)


def squared_error(outputs: Outputs, targets: Tensor, output: str | None = None) -> Tensor:
    """Mean squared error of real numbers: an output (N, ...), or (N, 1) for targets (N,), against them."""
    values = scored(outputs, output)
    return F.mse_loss(_as_targets(values, targets), targets.to(values.dtype))


def minus_squared_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """(N,), minus the mean squared error of each example: 0 is best. It is no ratio scale, so there is no retention."""
    errors = (_as_targets(predictions, targets) - targets) ** 2
    return -errors.reshape(len(errors), -1).mean(1)


def _as_targets(values: Tensor, targets: Tensor) -> Tensor:
    """Values in the shape of their targets; torch would compare each of (N, 1) with each of (N,)."""
    if values.numel() != targets.numel():
        problem = f"the output is {tuple(values.shape)} and the targets are {tuple(targets.shape)}"
        raise ConfigError(problem, expected="a number for each target")
    return values.reshape(targets.shape)
