"""Plain ONNX operators that decode what was packed; a runtime folds them when it loads the file."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from stages.quantize.packing.codes import digits
from stages.quantize.packing.codes.digits import WHOLE, Bytes, Code, Digits, Nibbles
from stages.quantize.packing.codes.writer import Writer

Book = NDArray[Any]
"""The value of each number (levels,); integers of 8 bits, or of 32 for places."""
LONG = 64
"""Values in a row that take as many bytes as two operators that compute them."""
BITWISE = 18
"""The first opset with operators on bits."""


def decode(writer: Writer, code: Code, packed: Bytes, count: int, book: Book) -> str:
    """The name of the values (at least count,) of packed numbers: those that `book` has of them."""
    numbers = ""
    if isinstance(code, Digits) and code != WHOLE and count >= digits.LARGE:
        if code.planes == 1:
            return _look_up(
                writer, packed[0], np.append(book, np.zeros(code.levels - len(book), book.dtype))[_rows(code)]
            )
        if writer.opset >= BITWISE:
            numbers = _looked_up(writer, code, packed)
    numbers = numbers or _divided(writer, code, packed, count)
    if book.dtype == np.int32:  # of places, which are their own numbers
        return numbers
    if is_computed(book):
        shifted = writer.node("Sub", numbers, writer.constant(np.array(-int(book[0]), np.int32)))
        return writer.cast(shifted, helper.np_dtype_to_tensor_dtype(book.dtype))
    # Gather is what OpenVINO 2026.4 folds as well, whose kernels are integer ones then; GatherElements is faster.
    operator = "GatherElements" if count >= digits.LARGE else "Gather"
    return writer.node(operator, writer.constant(book), numbers)


def is_computed(book: Book) -> bool:
    """Whether the values of a book are computed and not stored: many in a row."""
    return len(book) > LONG and len(book) == int(book[-1]) - int(book[0]) + 1


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


def _divided(writer: Writer, code: Code, packed: Bytes, count: int) -> str:
    """The name of the numbers (at least count,), int32, by arithmetic."""
    if isinstance(code, Nibbles):
        return writer.cast(writer.nibbles(packed, [count], TensorProto.UINT4), TensorProto.INT32)
    if code == WHOLE:
        return writer.cast(writer.tensor(packed.reshape(-1)), TensorProto.INT32)
    # (planes, 1, width) over (digits, 1) is (planes, digits, width): long rows, which is fast.
    words = packed if code.planes == 1 else packed[:, None]
    powers = (code.base ** np.arange(code.in_byte)).astype(np.int32)[:, None]
    shifted = writer.node("Div", writer.cast(writer.tensor(words), TensorProto.INT32), writer.constant(powers))
    lowest = writer.node("Mod", shifted, writer.constant(np.array(code.base, np.int32)))
    if code.planes > 1:
        places = (code.base ** np.arange(code.planes)).astype(np.int32)[:, None, None]
        weighted = writer.node("Mul", lowest, writer.constant(places))
        lowest = writer.node("ReduceSum", weighted, writer.constant(np.array([0])), keepdims=0)
    return writer.reshape(lowest, [-1])


def _looked_up(writer: Writer, code: Digits, packed: Bytes) -> str:
    """The name of the numbers (at least count,), int32, of planes of bits."""
    planes = [_look_up(writer, words, (_rows(code) << plane).astype(np.uint8)) for plane, words in enumerate(packed)]
    whole = reduce(lambda one, other: writer.node("BitwiseOr", one, other), planes)
    return writer.cast(whole, TensorProto.INT32)


def _look_up(writer: Writer, words: Bytes, tables: Book) -> str:
    """The name of what each table (256,) has for each of the words (width,): (tables * width,)."""
    places = writer.cast(writer.tensor(words), TensorProto.INT32)
    return writer.node(
        "Concat", *(writer.node("GatherElements", writer.constant(row), places) for row in tables), axis=0
    )


def _rows(code: Digits) -> NDArray[np.int64]:
    """Each digit (digits, 256) of each byte."""
    rows: NDArray[np.int64] = np.arange(256) // code.base ** np.arange(code.in_byte)[:, None] % code.base
    return rows
