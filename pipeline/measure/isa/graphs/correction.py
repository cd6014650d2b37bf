"""What saturating pairs take off the sums that they are in, in operators that every CPU computes alike."""

from collections.abc import Iterator

import numpy as np
from onnx import TensorProto

from pipeline.measure.isa.graphs.pairs import LEAST, MOST, Pairs
from pipeline.measure.isa.graphs.writer import Writer

AT_ONCE = 128
"""Pairs whose sums are held at the same time, unless a column or a share of `PIECES` has more of them."""
PIECES = 8
"""Parts of a layer at most: ONNX Runtime takes minutes to load a graph of many thousand nodes."""
EXACT = 512
"""Excesses of 15 bits that float32 adds without rounding, below 2^24."""


def corrected(writer: Writer, values: str, pairs: Pairs, outputs: int) -> tuple[str, list[str]]:
    """What is to be added to the exact sums (B, N, P), int32, and for each part of them how many pairs saturated.

    Of each pair that is sat(p) - p for p = a0 w0 + a1 w1.

    Args:
        writer: adds the nodes.
        values: uint8 (B, K, P), along whose second axis the products are summed up.
        pairs: those that can saturate, by column; at least one.
        outputs: N.
    """
    parts, counts = [], list[str]()
    for start, end, some in pieces(pairs, outputs):
        part, count = _piece(writer, values, some, end - start)
        parts.append(part)
        counts.append(count)
    return parts[0] if len(parts) == 1 else writer.add("Concat", *parts, axis=1), counts


def pieces(pairs: Pairs, outputs: int) -> Iterator[tuple[int, int, Pairs]]:
    """Ranges of columns that have about `AT_ONCE` pairs together, with these, whose columns begin anew at 0."""
    at_once = max(AT_ONCE, -(-pairs.size // PIECES))
    ends = np.searchsorted(pairs.column, np.arange(outputs), side="right")
    start, before = 0, 0
    for column in range(outputs):
        is_last = column + 1 == outputs
        if is_last or ends[column + 1] - before > at_once:
            some = Pairs(*(part[before : ends[column]] for part in pairs))
            yield start, column + 1, some._replace(column=some.column - start)
            start, before = column + 1, int(ends[column])


def _piece(writer: Writer, values: str, pairs: Pairs, outputs: int) -> tuple[str, str]:
    """The same (B, n, P) of some columns."""
    most = int(np.bincount(pairs.column, minlength=outputs).max(initial=0))
    dtype, kind = (np.float32, TensorProto.FLOAT) if most <= EXACT else (np.float64, TensorProto.DOUBLE)
    if not pairs.size:  # one that is never too large, so that the shape is that of others
        nothing = np.zeros(1, np.int64)
        pairs = Pairs(nothing, nothing, nothing, np.zeros((1, 2), np.int64))
    signs = pairs.signs
    size = (writer.constant((signs * weight)[:, None].astype(dtype)) for weight in pairs.weights.T)
    places = (pairs.first, pairs.second)
    products = [
        writer.add("Mul", writer.cast(writer.add("Gather", values, writer.constant(place), axis=1), kind), weight)
        for place, weight in zip(places, size, strict=True)
    ]
    limits = np.where(signs < 0, -LEAST, MOST)[:, None].astype(dtype)
    sums = writer.add("Sub", writer.add("Add", *products), writer.constant(limits))
    excess = writer.add("Max", sums, writer.constant(np.zeros(1, dtype)))
    which = np.zeros((outputs, pairs.size), dtype)
    which[pairs.column, np.arange(pairs.size)] = -signs
    count = writer.cast(writer.add("Greater", excess, writer.constant(np.zeros(1, dtype))), TensorProto.FLOAT)
    return writer.cast(writer.add("MatMul", writer.constant(which), excess), TensorProto.INT32), count
