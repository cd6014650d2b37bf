"""Pairs of products that can saturate: uint8 times int8, of which x86 without VNNI adds two at a time in 16 bits.

The instruction is vpmaddubsw. ONNX Runtime's kernels give it neighbours along the inner axis of a product: the values 0
and 1, 2 and 3, and so on; the last one of an odd number has zero beside it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST, MOST = -(2**15), 2**15 - 1
BYTE = 2**8 - 1

Indices = NDArray[np.int64]


class Pairs(NamedTuple):
    """Pairs of weights, column by column.

    Args:
        first, second: their places (R,) along the inner axis; the same where a weight stands alone.
        column: the outputs (R,) that they add to.
        weights: the weights (R, 2), int64.
    """

    first: Indices
    second: Indices
    column: Indices
    weights: Indices

    @property
    def size(self) -> int:
        """R."""
        return len(self.first)

    @property
    def signs(self) -> Indices:
        """Whether the sum of each is too large (1) or too small (-1): (R,)."""
        signs: Indices = np.sign(self.weights.sum(1))
        return signs


def saturable(weight: NDArray[np.int8]) -> Pairs:
    """The pairs of a weight (K, N) whose sum of products leaves 16 bits for some inputs of 0 to 255.

    Both weights of such a pair have one sign, as one product alone fits.
    """
    depth = len(weight)
    padded = np.concatenate([weight, np.zeros((depth % 2, weight.shape[1]), weight.dtype)]).astype(np.int64)
    even, odd = padded[0::2].T, padded[1::2].T  # (N, K/2)
    most = BYTE * (np.maximum(even, 0) + np.maximum(odd, 0))
    least = BYTE * (np.minimum(even, 0) + np.minimum(odd, 0))
    column, place = np.nonzero((most > MOST) | (least < LEAST))
    weights = np.stack([even[column, place], odd[column, place]], 1)
    return Pairs(2 * place, np.minimum(2 * place + 1, depth - 1), column, weights)


def joined(parts: list[Pairs]) -> Pairs:
    """The pairs of several, one after the other."""
    return Pairs(*(np.concatenate(values) for values in zip(*parts, strict=True)))
