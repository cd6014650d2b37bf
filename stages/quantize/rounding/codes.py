"""The integers that a weight may take: those of some bits, three of them, or a codebook of the best."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Integers = NDArray[np.int8]
HIGHEST = 127
"""Weights keep within -127 to 127, as ONNX Runtime's own do, so that there are as many below zero as above."""


def uniform(bits: int | str, highest: int = HIGHEST) -> Integers:
    """All integers of some bits, ascending.

    Args:
        bits: 2 to 8, or "ternary" for -1, 0 and 1.
        highest: for 8 bits the largest of them, and the smallest below zero; 64 where the range is reduced.
    """
    if bits == "ternary":
        return np.arange(-1, 2, dtype=np.int8)
    if bits == 8:
        return np.arange(-highest, highest + 1, dtype=np.int8)
    half = 2 ** (int(bits) - 1)
    return np.arange(-half, half, dtype=np.int8)


def nearest(values: Floats, codes: Integers) -> Integers:
    """For each value the nearest of the codes, which ascend; of two as near, the even one or the lower."""
    if int(codes[-1]) - int(codes[0]) == len(codes) - 1:
        return np.asarray(np.rint(values.clip(codes[0], codes[-1])), np.int8)
    middles = (codes[1:] + codes[:-1].astype(np.float64)) / 2
    return codes[np.searchsorted(middles, values)]


def codebook(values: Floats, size: int, highest: int = HIGHEST) -> Integers:
    """The integers, ascending, to the nearest of which the values have the least sum of squared distances.

    One-dimensional k-means, of which the best solution is found exactly: the centres are integers, so there are few to
    choose from, and what values between two neighbours cost depends on these two alone.

    Args:
        values: any shape, about -highest to highest; a weight over its channel's scale.
        size: how many integers, 2 to 256; at most all there are.
        highest: the largest of them, and the smallest below zero. Zero is one of them where a value is exactly 0.

    Reference: Haizhou Wang and Mingzhou Song, "Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic
    Programming", The R Journal 3/2, 2011.
    """
    centres = np.arange(-highest, highest + 1)
    size = min(size, len(centres))
    first, between, last = _costs(values, highest)
    if not np.all(values):
        between[:highest, highest + 1 :] = np.inf
        first[highest + 1 :], last[:highest] = np.inf, np.inf
    best, back = first, []
    for _ in range(size - 1):
        total = best[:, None] + between
        back.append(total.argmin(0))
        best = total.min(0)
    path = [int((best + last).argmin())]
    for previous in reversed(back):
        path.append(int(previous[path[-1]]))
    return centres[path[::-1]].astype(np.int8)


def _costs(values: Floats, highest: int) -> tuple[Floats, Floats, Floats]:
    """Squared distances of the values below each centre to it, between any two to the nearer, and above each to it."""
    places = 2 * highest + 1  # of the centres; with the middles between them there are about twice as many bounds
    bins = np.clip(np.floor(2 * (values.ravel() + highest)), -1, 2 * places - 2).astype(np.int64) + 1
    powers = [np.bincount(bins, values.ravel().astype(np.float64) ** p, minlength=2 * places) for p in range(3)]
    sums = np.concatenate([np.zeros((3, 1)), np.cumsum(powers, axis=1)], axis=1)

    def cost(start: NDArray[np.int64], stop: NDArray[np.int64], centre: NDArray[np.int64]) -> Floats:
        count, total, squares = sums[:, stop] - sums[:, start]
        return np.asarray(squares - 2 * centre * total + count * centre.astype(np.float64) ** 2)

    at = np.arange(places)
    centre, bound = at - highest, 2 * at + 1  # all bins before `bound` are below the centre
    middle = at[:, None] + at[None, :] + 1
    between = cost(bound[:, None], middle, centre[:, None]) + cost(middle, bound[None, :], centre[None, :])
    between[np.tril_indices(places)] = np.inf
    end = np.full(places, 2 * places)
    return cost(np.zeros_like(at), bound, centre), between, cost(bound, end, centre)
