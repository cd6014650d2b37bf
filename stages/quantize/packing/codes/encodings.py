"""How the integers of some tensors are stored in the fewest bytes: the choice, and the nodes that decode them."""

from dataclasses import dataclass
from math import ceil, lcm, log2
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from stages.quantize.packing.codes.decoders import decode, decode_nibbles, is_computed, scatter
from stages.quantize.packing.codes.digits import WHOLE, Code, Digits, Nibbles, smallest
from stages.quantize.packing.codes.sparse import WIDTHS, expected_bits, gaps_of
from stages.quantize.packing.codes.writer import Writer

Integers = NDArray[Any]
"""(N,) of int8 or uint8."""


@dataclass(frozen=True)
class Decoded:
    """What decodes to integers.

    Args:
        name: of the value in the graph.
        length: of the value, which may be more than was asked for.
        encoding: what it is called in the report.
        payload: bytes of the stored numbers.
    """

    name: str
    length: int
    encoding: str
    payload: int


def write(writer: Writer, integers: Integers) -> Decoded:
    """The nodes, at the end of the writer's, that decode to integers of which the fewest bytes are stored."""
    values = values_of(integers)
    dense = dense_bytes(len(values), len(integers), writer.opset)
    sparse_bits = _sparse_bits(int(np.count_nonzero(integers)), len(integers), len(values))
    if 0 in values and len(values) > 1 and sparse_bits / 8 < dense:
        return _sparse(writer, integers, values)
    return _dense(writer, integers, values)


def values_of(integers: Integers) -> Integers:
    """The values that integers have, in order."""
    counts = np.bincount(integers.view(np.uint8), minlength=256)
    return np.sort(np.flatnonzero(counts).astype(np.uint8).view(integers.dtype))


def _numbers(integers: Integers, book: Integers) -> NDArray[np.uint8]:
    """The place of each integer in a book."""
    places = np.zeros(256, np.uint8)
    places[book.view(np.uint8)] = np.arange(len(book))
    return places[integers.view(np.uint8)]


def dense_bytes(levels: int, count: int, opset: int) -> int:
    """Bytes of so many integers with so many values, and of the values."""
    return smallest(levels, count, opset).size(count) + levels


def _sparse_bits(filled: int, count: int, levels: int) -> float:
    if not filled:
        return float("inf")
    return filled * expected_bits(filled / count, log2(max(levels - 1, 2)))


def estimate(filled: int, count: int, levels: int, opset: int) -> float:
    """Bytes that so many integers take, of which some are not zero."""
    return min(dense_bytes(levels, count, opset), _sparse_bits(filled, count, levels) / 8 + levels)


def _dense(writer: Writer, integers: Integers, values: Integers) -> Decoded:
    code, count = smallest(len(values), len(integers), writer.opset), len(integers)
    kind = onnx.helper.np_dtype_to_tensor_dtype(integers.dtype)
    low, high = (-8, 7) if integers.dtype == np.int8 else (0, 15)
    if isinstance(code, Nibbles) and low <= values[0] and values[-1] <= high:
        packed = code.pack(integers)
        return Decoded(decode_nibbles(writer, packed, [count], kind), count, "int4", packed.size)
    row = np.arange(int(values[0]), int(values[-1]) + 1).astype(values.dtype)
    book = row if is_computed(row) and len(row) <= code.levels else values
    packed = code.pack(_numbers(integers, book))
    length = count if isinstance(code, Nibbles) else code.width(count) * code.in_byte
    name = decode(writer, code, packed, count, book)
    return Decoded(name, length, _called(code, values), packed.size + (0 if is_computed(book) else book.nbytes))


def _called(code: Code, values: Integers) -> str:
    if isinstance(code, Digits) and code.levels == 3:
        return "ternary"
    bits = ceil(log2(max(len(values), 2)))
    is_range = len(values) == int(values[-1]) - int(values[0]) + 1
    return f"planes{bits}" if bits in (2, 3) and is_range else f"codebook{bits}"


def _sparse(writer: Writer, integers: Integers, values: Integers) -> Decoded:
    book = np.append(np.zeros(1, values.dtype), values[values != 0])
    numbers = _numbers(integers, book)
    of_values = smallest(len(book), len(integers), writer.opset)
    tries = [(bits, smallest(2**bits, len(integers), writer.opset)) for bits in WIDTHS]
    sparse, of_gaps = min(
        ((gaps_of(numbers, bits, lcm(code.in_byte, of_values.in_byte)), code) for bits, code in tries),
        key=lambda pair: of_values.size(len(pair[0].values)) + pair[1].size(len(pair[0].gaps)),
    )
    gaps = np.arange(of_gaps.levels, dtype=np.int32)
    packed = of_gaps.pack(sparse.gaps)
    places = decode(writer, of_gaps, packed, len(sparse.gaps), gaps)
    if of_values == WHOLE:
        filled, payload = writer.tensor(book[sparse.values]), len(sparse.values)
    else:
        codes = of_values.pack(sparse.values)
        filled, payload = decode(writer, of_values, codes, len(sparse.values), book), codes.size + book.nbytes
    length = max(len(integers), int(sparse.gaps.sum()) + 1)
    kind = onnx.helper.np_dtype_to_tensor_dtype(integers.dtype)
    return Decoded(scatter(writer, places, filled, length, kind), length, "sparse", packed.size + payload)
