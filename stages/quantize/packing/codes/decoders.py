"""Plain ONNX operators that decode what was packed; a runtime folds them when it loads the file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from stages.quantize.packing.codes.digits import WHOLE, Bytes, Code, Digits, Nibbles
from stages.quantize.packing.codes.writer import Writer

Book = NDArray[Any]
"""The value of each number (levels,); integers of 8 bits, or of 32 for places."""
LARGE = 2**18
"""From so many numbers on each digit is looked up in a table of all bytes: some hundred bytes more, several times
faster to load than a division of each."""


def decode(writer: Writer, code: Code, packed: Bytes, count: int, book: Book) -> str:
    """The name of the values (at least count,) of packed numbers: those that `book` has of them."""
    if isinstance(code, Digits) and code.planes == 1 and code != WHOLE and count >= LARGE:
        return _tables(writer, code, packed, book)
    numbers = _numbers(writer, code, packed, count)
    if book.dtype == np.int32 and np.array_equal(book, np.arange(len(book))):
        return numbers
    return writer.node("GatherElements", writer.constant(book), numbers)


def decode_nibbles(writer: Writer, packed: Bytes, dims: Sequence[int], kind: int) -> str:
    """The name of 8-bit integers, of this type, that 4 bits hold."""
    narrow = TensorProto.INT4 if kind == TensorProto.INT8 else TensorProto.UINT4
    return writer.cast(writer.nibbles(packed, dims, narrow), kind)


def scatter(writer: Writer, gaps: str, values: str, count: int, kind: int) -> str:
    """The name of integers (count,) of this type: zeros, and values behind gaps (int32) from one to the next."""
    places = writer.node("CumSum", gaps, writer.constant(np.array(0, np.int32)))
    zero = helper.make_tensor("", kind, [1], [0])
    zeros = writer.node("ConstantOfShape", writer.constant(np.array([count])), value=zero)
    return writer.node("ScatterElements", zeros, places, values)


def _numbers(writer: Writer, code: Code, packed: Bytes, count: int) -> str:
    """The name of the numbers (at least count,), int32."""
    if isinstance(code, Nibbles):
        return writer.cast(writer.nibbles(packed, [count], TensorProto.UINT4), TensorProto.INT32)
    if code == WHOLE:
        return writer.cast(writer.tensor(packed.reshape(-1)), TensorProto.INT32)
    # (planes, 1, width) over (digits, 1) is (planes, digits, width): long rows, which is fast.
    words = packed if code.planes == 1 else packed[:, None]
    powers = (code.base ** np.arange(code.in_byte)).astype(np.int32)[:, None]
    shifted = writer.node("Div", writer.cast(writer.tensor(words), TensorProto.INT32), writer.constant(powers))
    digits = writer.node("Mod", shifted, writer.constant(np.array(code.base, np.int32)))
    if code.planes > 1:
        places = (code.base ** np.arange(code.planes)).astype(np.int32)[:, None, None]
        weighted = writer.node("Mul", digits, writer.constant(places))
        digits = writer.node("ReduceSum", weighted, writer.constant(np.array([0])), keepdims=0)
    return writer.reshape(digits, [-1])


def _tables(writer: Writer, code: Digits, packed: Bytes, book: Book) -> str:
    words = writer.cast(writer.tensor(packed.reshape(-1)), TensorProto.INT32)
    digits = np.arange(256) // code.base ** np.arange(code.in_byte)[:, None] % code.base
    whole = np.append(book, np.zeros(code.base - len(book), book.dtype))
    parts = [writer.node("GatherElements", writer.constant(whole[row]), words) for row in digits]
    return writer.node("Concat", *parts, axis=0)
