"""Scales and ranges of least squared error, in place of those that hold the largest value."""

import numpy as np

from stages.quantize.rounding.codes import Floats, Integers, codebook, nearest

FACTORS = np.linspace(0.05, 1.2, 116)
"""Of the scale that just holds the largest weight; above 1 where there is one code more below zero than above."""
ROUNDS = 4
FLOAT16 = np.finfo(np.float16)


def total(values: Floats, like: Floats) -> Floats:
    """The values (groups, channels, width) added up over all that shares a scale of the shape of `like`."""
    axes = (*(axis for axis in (0, 1) if like.shape[axis] == 1), 2)
    return np.asarray(values.sum(axis=axes, keepdims=True))


def largest(weights: Floats, highest: int, shape: tuple[int, ...]) -> Floats:
    """Scales with which `highest` stands for the largest weight, 1 where all are zero.

    Args:
        weights: (groups, channels, width).
        highest: an integer above 0.
        shape: of the scales: (groups or 1, channels or 1, 1).
    """
    axes = (*(axis for axis in (0, 1) if shape[axis] == 1), 2)
    top = np.abs(weights).max(axis=axes, keepdims=True).astype(np.float64)
    return np.where(top > 0, top / highest, 1.0)


def least_squares(weights: Floats, codes: Integers, shape: tuple[int, ...]) -> Floats:
    """Scales s with which the nearest codes q have the least squared error: sum of (w - s q)^2, searched and refined.

    Args:
        weights: (groups, channels, width).
        codes: the integers that weights may become, ascending.
        shape: of the scales: (groups or 1, channels or 1, 1).
    """
    widest = largest(weights, max(-int(codes[0]), int(codes[-1])), shape)
    best, least = widest, np.full(widest.shape, np.inf)
    for factor in FACTORS:
        scale = in_half(widest * factor)
        error = total((weights - scale * nearest(weights / scale, codes)) ** 2, scale)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return refined(weights, codes, best)


def refined(weights: Floats, codes: Integers, scale: Floats) -> Floats:
    """Scales of no more error: in turns the nearest codes, and the scale that is best for these."""
    for _ in range(ROUNDS):
        scale = fitted(weights, nearest(weights / scale, codes), scale)
    return scale


def fitted(weights: Floats, integers: Integers, scale: Floats, products: Floats | None = None) -> Floats:
    """The scale s that is best for some integers q, the least squares of w - s q; the old one where that is none.

    Args:
        weights, integers: w and q, (groups, channels, width).
        scale: the old one, (groups or 1, channels or 1, 1).
        products: (groups, width, width), where it is the outputs' squares that should be least.
    """
    q = integers.astype(np.float64)
    direction = q if products is None else q @ products
    above, below = total(weights * direction, scale), total(q * direction, scale)
    is_one = (above > 0) & (below > 0)
    return np.where(is_one, in_half(np.divide(above, below, out=scale.copy(), where=is_one)), scale)


def in_half(scale: Floats) -> Floats:
    """The scale as 16 bits hold it, so that it can be stored in two bytes; unchanged where it is out of their range."""
    if scale.min() < FLOAT16.smallest_normal or scale.max() > FLOAT16.max:
        return scale
    return scale.astype(np.float16).astype(np.float64)


def with_codebook(weights: Floats, size: int, highest: int, shape: tuple[int, ...]) -> tuple[Integers, Floats]:
    """A codebook for a layer and the scales of its channels, of least squared error in steps of these.

    Args:
        weights: (groups, channels, width).
        size: integers in the codebook at most.
        highest: the largest of them.
        shape: of the scales: (groups or 1, channels or 1, 1).
    """
    scale = in_half(largest(weights, highest, shape))
    codes = codebook(weights / scale, size, highest)
    for _ in range(ROUNDS):
        scale = fitted(weights, nearest(weights / scale, codes), scale)
        codes = codebook(weights / scale, size, highest)
    return codes, scale


def least_range(counts: Floats, edges: Floats, low: float, high: float, levels: int = 256) -> tuple[float, float]:
    """The range within `low` to `high` that has the least squared error when values are clipped to it and rounded.

    Args:
        counts: (bins,) values in each bin of a histogram.
        edges: (bins + 1,) where the bins begin and end.
        low, high: the smallest value and the largest.
        levels: steps that the range is divided into, with zero among them.
    """
    kept = counts > 0
    values, weights = ((edges[1:] + edges[:-1]) / 2)[kept], counts[kept]
    low, high = min(low, 0.0), max(high, 0.0)
    shares = np.linspace(0.05, 1, 96)

    def error(a: float, b: float) -> float:
        step = (b - a) / (levels - 1)
        if step <= 0:
            return np.inf
        zero = np.rint(-a / step)
        rounded = (np.rint(values / step) + zero).clip(0, levels - 1) - zero
        return float(weights @ (values - rounded * step) ** 2)

    a, b = low, high
    for _ in range(2):  # one end after the other, and again
        b = min((high * share for share in shares[::-1]), key=lambda end: error(a, end)) if high else b
        a = min((low * share for share in shares[::-1]), key=lambda end: error(end, b)) if low else a
    return a, b
