"""Few values among zeros: how far each lies behind the one before, and the values."""

from typing import NamedTuple

import numpy as np

from stages.quantize.packing.codes.digits import Indices

WIDTHS = range(2, 9)
"""Bits of a gap that are tried."""


class Sparse(NamedTuple):
    """Values at places.

    Args:
        gaps: (N,) from 0 to 2 ** bits - 1: how many places each value lies behind the one before; the first counts
            from the first place.
        values: (N,); a step that is too far for one gap is taken in several, with zeros between.
    """

    gaps: Indices
    values: Indices


def gaps_of(numbers: Indices, bits: int, multiple: int = 1) -> Sparse:
    """Numbers (N,) as gaps of so many bits and the values there, a multiple of them: zeros follow the last one."""
    places = np.flatnonzero(numbers)
    distances = np.diff(places, prepend=0)
    longest = 2**bits - 1
    steps = np.maximum(distances - 1, 0) // longest
    ends = np.cumsum(steps + 1) - 1
    gaps = np.full(len(places) + int(steps.sum()), longest, np.int64)
    values = np.zeros(len(gaps), numbers.dtype)
    gaps[ends], values[ends] = distances - steps * longest, numbers[places]
    more = -len(gaps) % multiple
    return Sparse(np.append(gaps, np.ones(more, np.int64)), np.append(values, np.zeros(more, numbers.dtype)))


def numbers_of(sparse: Sparse, count: int) -> Indices:
    """The numbers (count,) of what `gaps_of` gave."""
    places = np.cumsum(sparse.gaps)
    numbers = np.zeros(max(count, places[-1] + 1), np.int64)
    numbers[places] = sparse.values
    return numbers[:count]


def expected_bits(share: float, value_bits: float) -> float:
    """Bits of each value by the best gap, where values lie at random.

    Args:
        share: of the numbers that are not zero, above 0.
        value_bits: of a value.
    """
    longest = {bits: (1 << bits) - 1 for bits in WIDTHS}
    return min((bits + value_bits) / (1 - (1 - share) ** steps) for bits, steps in longest.items())
