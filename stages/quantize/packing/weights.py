"""The weights of a graph in the place of which something stands that decodes to them."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from math import prod
from typing import NamedTuple

import numpy as np

from stages.quantize.packing.codes.encodings import write
from stages.quantize.packing.codes.writer import Writer
from stages.quantize.packing.groups import Group, Weight, grouped


class Stored(NamedTuple):
    """How a tensor is stored: what that is called, and in how many bytes."""

    encoding: str
    bytes: int


def pack(writer: Writer, weights: Iterable[Weight]) -> dict[str, Stored]:
    """Add to the writer what decodes to weights, by their names; how those are stored that it pays for."""
    stored: dict[str, Stored] = {}
    for group in grouped(weights, writer.opset):
        stored |= _pack(writer, group)
    return stored


def _pack(writer: Writer, group: Group) -> dict[str, Stored]:
    weights = sorted(group.weights, key=lambda weight: weight.dims[1:])  # those of a kind beside each other
    decoded = write(writer, np.concatenate([weight.integers for weight in weights]))
    spread(writer, decoded.name, decoded.length, {weight.name: weight.dims for weight in weights})
    ends = np.cumsum([0, *(weight.integers.size for weight in weights)]) * decoded.payload // group.count
    sizes = np.diff(ends).tolist()
    return {weight.name: Stored(decoded.encoding, size) for weight, size in zip(weights, sizes, strict=True)}


def spread(writer: Writer, name: str, length: int, dims: dict[str, tuple[int, ...]]) -> None:
    """Cut a value (length,) into tensors of shapes, by their names; those of rows alike stand beside each other."""
    families = [list(some) for _, some in groupby(dims, lambda tensor: dims[tensor][1:])]
    sizes = [sum(prod(dims[tensor]) for tensor in some) for some in families]
    rest = [length - sum(sizes)] if length > sum(sizes) else []
    whole = writer.split(name, [*sizes, *rest])
    for some, part in zip(families, whole, strict=False):
        _spread_rows(writer, part, some, dims)


def _spread_rows(writer: Writer, name: str, some: Sequence[str], dims: dict[str, tuple[int, ...]]) -> None:
    """Cut a flat value into tensors whose rows have one shape."""
    if len(some) == 1:
        writer.reshape(name, dims[some[0]], to=some[0])
        return
    row = dims[some[0]][1:]
    rows = writer.reshape(name, [-1, *row]) if row else name
    writer.split(rows, [dims[tensor][0] for tensor in some], to=some)
