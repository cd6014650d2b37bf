"""Whole numbers written in few bits: so many digits of a base in each byte, or in planes of bytes."""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Indices = NDArray[np.integer[Any]]


class Digits(NamedTuple):
    """A code of numbers below base ** planes: in each byte of a plane one digit of each of several numbers.

    The first numbers have the lowest digits of their bytes, the next ones the second, and so on: numbers that are
    decoded by one division lie beside each other.

    Args:
        base: of the digits, from 2 to 256.
        planes: how many digits a number has; each has bytes of its own, the lowest come first.
    """

    base: int
    planes: int = 1

    @property
    def levels(self) -> int:
        """How many numbers there are."""
        return int(self.base**self.planes)

    @property
    def in_byte(self) -> int:
        """How many digits a byte has room for."""
        return next(n for n in range(8, 0, -1) if self.base**n <= 256)

    def width(self, count: int) -> int:
        """Bytes of a plane of so many numbers."""
        return -(-count // self.in_byte)

    def size(self, count: int) -> int:
        """Bytes of so many numbers."""
        return self.planes * self.width(count)

    def pack(self, numbers: Indices) -> Bytes:
        """The bytes (planes, width) of numbers (N,) from 0 to levels - 1; what is over is filled with 0."""
        padded = np.zeros((self.in_byte, self.width(len(numbers))), np.uint8)
        padded.reshape(-1)[: len(numbers)] = numbers
        packed = np.zeros((self.planes, padded.shape[1]), np.uint8)
        for plane, row in product(range(self.planes), range(self.in_byte)):
            digits = padded[row] // self.base**plane % self.base if self.base < 256 else padded[row]
            packed[plane] += digits * np.uint8(self.base**row)
        return packed

    def unpack(self, packed: Bytes, count: int) -> Indices:
        """The numbers (count,) of what `pack` gave."""
        powers = self.base ** np.arange(self.in_byte)[:, None]
        planes = np.stack([(plane.astype(np.int64) // powers % self.base).reshape(-1) for plane in packed])
        numbers: Indices = self.base ** np.arange(self.planes) @ planes
        return numbers[:count]


class Nibbles(NamedTuple):
    """The code of INT4 and UINT4 of ONNX: two numbers a byte, the first in the low half."""

    levels: int = 16
    in_byte: int = 2
    planes: int = 1

    def size(self, count: int) -> int:
        """Bytes of so many numbers."""
        return -(-count // 2)

    def pack(self, numbers: Indices) -> Bytes:
        """The bytes of numbers (N,), modulo 16."""
        halves = np.append(numbers, np.zeros(len(numbers) % 2, numbers.dtype)).astype(np.uint8) & 15
        return (halves[0::2] | halves[1::2] << 4).astype(np.uint8)

    def unpack(self, packed: Bytes, count: int) -> Indices:
        """The numbers (count,), from 0 to 15, of what `pack` gave."""
        return np.stack([packed & 15, packed >> 4], 1).reshape(-1).astype(np.int64)[:count]


Code = Digits | Nibbles
FOUR_BITS = 21
"""The first opset with integers of 4 bits."""
WHOLE = Digits(256)
NARROW = tuple(
    code for base in (2, 3, 4, 5, 6, 16) for planes in range(1, 8) if (code := Digits(base, planes)).levels <= 128
)


LARGE = 2**19
"""From so many numbers on each digit is looked up in a table of all bytes: some hundred bytes more, several times
faster to load than a division of each, and in less memory. Planes of another base than 2 are for fewer numbers."""


def smallest(levels: int, count: int, opset: int) -> Code:
    """The code of the fewest bytes, and then planes, for so many numbers of so many levels, which an opset can decode.

    Args:
        levels: from 1 to 256.
        count: of the numbers.
        opset: of the graph that decodes them.
    """
    narrow = [code for code in NARROW if code.planes == 1 or code.base == 2 or count < LARGE]
    codes: list[Code] = [*([Nibbles()] if opset >= FOUR_BITS else []), *narrow]
    fitting = [code for code in codes if code.levels >= levels]
    return min(fitting, key=lambda code: (code.size(count), code.planes), default=WHOLE)
