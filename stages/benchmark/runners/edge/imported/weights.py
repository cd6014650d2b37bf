"""Constants in integers."""

from typing import Any, NamedTuple

import numpy as np


class Weight(NamedTuple):
    """A constant in integers: zero_point and scale have one value, or one for each place of the axis."""

    codes: Any
    scale: Any
    zero_point: Any
    axis: int

    @property
    def floats(self) -> Any:
        """What the integers stand for."""
        scale, zero_point = (along(one, self.axis, self.codes.ndim) for one in (self.scale, self.zero_point))
        return ((self.codes.astype(np.float64) - zero_point) * scale).astype(np.float32)

    @property
    def turned(self) -> "Weight":
        """A matrix with its axes exchanged."""
        return Weight(np.ascontiguousarray(self.codes.T), self.scale, self.zero_point, 1 - self.axis)

    @property
    def by_channel(self) -> "Weight":
        """With a scale for each place of the first axis, where there is one for all."""
        if np.size(self.scale) > 1:
            return self
        count = len(self.codes)
        scale, zero_point = (np.full(count, np.ravel(one)[0]) for one in (self.scale, self.zero_point))
        return Weight(self.codes, scale, zero_point, 0)


def along(numbers: Any, axis: int, rank: int) -> Any:
    """One number for all, or one for each place of an axis, as they are multiplied with a value of that rank."""
    shape = [-1 if place == axis else 1 for place in range(rank)] if np.size(numbers) > 1 else []
    return np.reshape(numbers, shape)
