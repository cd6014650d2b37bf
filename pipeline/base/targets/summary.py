"""What the targets of a split are, seen one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.base.targets.labelling import IGNORED

TOLERANCE = 0.01  # by which shares of classes may differ from 1 together
MOST_CLASSES = 10_000  # that are remembered


@dataclass
class TargetSummary:
    """What can be said of all targets seen so far; those that are ignored are left out.

    Args:
        ignore_index: the target that does not count.
        real: whether some are of a floating type.
        whole: whether all numbers are whole.
        low, high: the smallest and the largest number, which are first met at `low_at` and `high_at`.
        one_hot: whether each is an array of which the first axis has one 1, and 0 else.
        shares: the same of numbers that are 0 or more and 1 together.
        values: the whole numbers that occur, as class numbers.
        places: the places of vectors of 0 and 1 that are 1 somewhere, as labels.
        unlabelled: positions of the examples of which nothing counts.
        misfits: by type, the position of the first that is no number; "None" where it is or holds None.
    """

    ignore_index: int = IGNORED
    real: bool = False
    whole: bool = True
    low: float = inf
    high: float = -inf
    low_at: int = 0
    high_at: int = 0
    one_hot: bool = True
    shares: bool = True
    values: set[int] = field(default_factory=set)
    places: set[int] = field(default_factory=set)
    unlabelled: list[int] = field(default_factory=list)
    misfits: dict[str, int] = field(default_factory=dict)

    def add(self, position: int, target: Any) -> None:
        """Look at one more."""
        numbers = _numbers(target)
        if numbers is None:
            self.misfits.setdefault("None" if _holds_none(target) else type(target).__name__, position)
        elif isinstance(numbers, np.ndarray):
            self._add_array(position, numbers)
        elif numbers == self.ignore_index:
            self.unlabelled.append(position)
        else:  # most are single numbers, and there are many
            self.one_hot = self.shares = False
            self.real |= isinstance(numbers, float)
            self._add_range(position, numbers, numbers)
            self.whole &= numbers == numbers // 1
            if numbers == numbers // 1 and len(self.values) < MOST_CLASSES:
                self.values.add(int(numbers))

    def _add_array(self, position: int, numbers: Any) -> None:
        counted = numbers[numbers != self.ignore_index]
        if not counted.size:
            self.unlabelled.append(position)
            return
        real, low, high = counted.dtype.kind == "f", float(counted.min()), float(counted.max())
        whole = not real or bool((counted == np.floor(counted)).all())
        self.real, self.whole = self.real or real, self.whole and whole
        self._add_range(position, low, high)
        self._add_shares(numbers)
        if whole and len(self.values) < MOST_CLASSES and 0 <= low <= high < MOST_CLASSES:
            self.values.update(np.flatnonzero(np.bincount(counted.astype(np.int64))).tolist())

    def _add_range(self, position: int, low: float, high: float) -> None:
        if low < self.low:
            self.low, self.low_at = low, position
        if high > self.high:
            self.high, self.high_at = high, position

    def _add_shares(self, numbers: Any) -> None:
        """Whether the numbers are shares of classes on the first axis, and which of them are above a half."""
        self.shares &= numbers.ndim > 0 and len(numbers) > 1 and bool(numbers.min() >= 0)
        if self.shares:
            self.shares = bool((abs(numbers.sum(0, dtype=np.float64) - 1) < TOLERANCE).all())
        self.one_hot = self.one_hot and self.shares and bool(np.isin(numbers, (0, 1)).all())
        if numbers.ndim == 1 and len(numbers) < MOST_CLASSES:
            self.places.update(np.flatnonzero(numbers > 0.5).tolist())

    @property
    def binary(self) -> bool:
        """Whether all numbers are 0 or 1."""
        return self.whole and self.low >= 0 and self.high <= 1


def merged(summaries: Sequence[TargetSummary]) -> TargetSummary:
    """What holds of several splits together; positions are left out, for they are of one."""
    return TargetSummary(
        ignore_index=summaries[0].ignore_index,
        real=any(one.real for one in summaries),
        whole=all(one.whole for one in summaries),
        low=min(one.low for one in summaries),
        high=max(one.high for one in summaries),
        one_hot=all(one.one_hot for one in summaries),
        shares=all(one.shares for one in summaries),
    )


def _holds_none(target: Any) -> bool:
    inner = target.values() if isinstance(target, Mapping) else target if isinstance(target, list | tuple) else ()
    return target is None or any(map(_holds_none, inner))


def _numbers(target: Any) -> Any:
    """A target as a number or an array of numbers; None where it is neither, nor a tensor."""
    if isinstance(target, Tensor):
        if target.ndim == 0:
            return target.item() if not target.is_complex() else None
        target = (target.float() if target.is_floating_point() else target).detach().cpu().numpy()
    elif isinstance(target, np.generic):
        target = target.item()
    if isinstance(target, int | float):
        return target
    return target if isinstance(target, np.ndarray) and target.dtype.kind in "biuf" else None
