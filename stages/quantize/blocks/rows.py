"""Rows of weights as whole numbers, block by block, and as the bytes that ONNX Runtime's operators read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Rows:
    """Weights w = scale * (code - zero), with a scale and a zero point for each block of a row.

    Args:
        codes: (rows, blocks, size) whole numbers from 0 to 2^bits - 1; what a row lacks in its last block is there too.
        scales: (rows, blocks).
        zeros: (rows, blocks), whole numbers or, where `has_fractions`, any; None for the middle, 2^(bits - 1).
        bits: 8, 4 or 2.
        width: weights of a row.
    """

    codes: Bytes
    scales: Floats
    zeros: Floats | None
    bits: int
    width: int

    @property
    def has_fractions(self) -> bool:
        """Whether zero points lie between whole numbers."""
        return self.zeros is not None and not np.array_equal(self.zeros, np.rint(self.zeros))

    @property
    def dequantized(self) -> Floats:
        """(rows, width), what the codes stand for, computed in fp32 scales."""
        zeros = np.float64(2 ** (self.bits - 1)) if self.zeros is None else self.zeros.astype(np.float64)[..., None]
        values = (self.codes - zeros) * self.scales.astype(np.float32).astype(np.float64)[..., None]
        return np.asarray(values.reshape(len(values), -1)[:, : self.width])


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows below each other, of the same kind."""
    codes, scales = (np.concatenate([getattr(part, name) for part in parts]) for name in ("codes", "scales"))
    zeros = [part.zeros for part in parts if part.zeros is not None]
    return replace(parts[0], codes=codes, scales=scales, zeros=np.concatenate(zeros) if zeros else None)


def in_blocks(weights: Floats, size: int) -> Floats:
    """(rows, width) -> (rows, blocks, size), zeros behind the last."""
    missing = -weights.shape[1] % size
    return np.pad(weights.astype(np.float64), [(0, 0), (0, missing)]).reshape(len(weights), -1, size)


def packed(codes: NDArray[np.generic], bits: int) -> Bytes:
    """Whole numbers (..., count) in the fewest bytes (..., bytes), the first of each byte in its lowest bits."""
    share = 8 // bits
    padding = [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % share)]
    parts = np.pad(codes.astype(np.uint8), padding).reshape(*codes.shape[:-1], -1, share)
    shifted = parts << (bits * np.arange(share, dtype=np.uint8))
    return np.asarray(np.bitwise_or.reduce(shifted, -1))
