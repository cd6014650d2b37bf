"""Figures of multi-label tasks over a whole split; what is no label, as -100, does not count."""

from typing import Any

import numpy as np
from torch import Tensor

from pipeline.base.targets.metric import Metric
from pipeline.errors import ConfigError

LAST = np.int32(2**31 - 2)


def _flat(predictions: Tensor, targets: Tensor) -> tuple[Any, Any, Any]:
    """Predictions and labels (N, L), and which of them count."""
    if predictions.shape[:1] != targets.shape[:1] or predictions.numel() != targets.numel():
        problem = f"predictions are {tuple(predictions.shape)} and targets {tuple(targets.shape)}"
        raise ConfigError(problem, expected="one shape, (N, labels)")
    ours, theirs = (values.reshape(len(values), -1).float().numpy() for values in (predictions, targets))
    return ours, theirs > 0.5, (theirs >= 0) & (theirs <= 1)


def _counts(predictions: Tensor, targets: Tensor) -> Any:
    """(N, 3, L): whether each label is rightly predicted, predicted, and there."""
    ours, labels, counted = _flat(predictions, targets)
    predicted, wanted = (ours > 0) & counted, labels & counted
    return np.stack([predicted & wanted, predicted, wanted], 1)


def _f1_micro(rows: Any) -> float:
    right, predicted, wanted = rows.sum((0, 2), dtype=np.int64)
    return float(2 * right / max(predicted + wanted, 1))


def _f1_macro(rows: Any) -> float:
    right, predicted, wanted = rows.sum(0, dtype=np.int64)
    either = predicted + wanted
    return float((2 * right / np.maximum(either, 1)).sum() / max((either > 0).sum(), 1))


f1_micro = Metric(_counts, _f1_micro)
"""F1 of all labels together, 0 to 1: 2 TP / (2 TP + FP + FN); predictions above 0, logits, are predicted.

Reference:
    van Rijsbergen: Information Retrieval, 2nd edition, 1979, chapter 7.
"""

f1_macro = Metric(_counts, _f1_macro)
"""The mean of each label's F1 over the labels that are there or predicted in some example, 0 to 1."""


def _ranks(predictions: Tensor, targets: Tensor) -> Any:
    """(N, L), whole numbers: how many values of a label are larger, twice, and 1 more where the label is there.

    What does not count comes after all others, and is not there.
    """
    ours, labels, counted = _flat(predictions, targets)
    ranks = np.stack([np.unique(-column, return_inverse=True)[1] for column in ours.T], 1).astype(np.int32)
    return np.where(counted, 2 * ranks + labels, LAST)


def _mean_average_precision(rows: Any) -> float:
    size = len(rows)
    ordered = np.sort(np.ascontiguousarray(rows.T), axis=1)
    right = (ordered & 1).cumsum(1, dtype=np.int32)
    steps = np.ones(ordered.shape, dtype=bool)  # equal values are one threshold: their last place tells of it
    steps[:, :-1] = ordered[:, :-1] >> 1 != ordered[:, 1:] >> 1
    at = np.flatnonzero(steps)
    reached, gained = right.ravel()[at], np.diff(right.ravel()[at], prepend=0)
    starts = np.flatnonzero(np.diff(at // size, prepend=-1))  # of each label
    gained[starts] = reached[starts]
    sums, there = np.add.reduceat(gained * (reached / (at % size + 1)), starts), right[:, -1]
    return float((sums[there > 0] / there[there > 0]).mean()) if there.any() else float("nan")


mean_average_precision = Metric(_ranks, _mean_average_precision)
"""The mean over labels of the average precision, 0 to 1, over those that some example has; NaN where none has one.

A label's average precision is the mean, over the examples that have it, of the precision among all that are predicted
as strongly or more: sum of (R_k - R_(k-1)) P_k over thresholds, not interpolated.

Reference:
    Manning, Raghavan and Schütze: Introduction to Information Retrieval, 2008, section 8.4.
"""

MULTI_LABEL = {"f1_micro": f1_micro, "f1_macro": f1_macro, "mean_average_precision": mean_average_precision}
