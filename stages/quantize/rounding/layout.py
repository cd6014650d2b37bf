"""A node's weight as blocks (groups, channels, width), and its inputs as the rows (positions, width) that they meet."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from stages.quantize.rounding.codes import Floats

Places = NDArray[np.int64]
WEIGHTS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (1,), "MatMul": (1,), "Gather": (0,), "LSTM": (1, 2)}
"""Operators with weights that take fewer bits, and which of their inputs these are."""
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
LARGEST = 2**24
"""Numbers of rows that are held at once."""


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The values of a node's attributes, by name."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def places(node: onnx.NodeProto, shape: tuple[int, ...]) -> Places:
    """Where in the flattened weight each number of its blocks lies: (groups, channels, width).

    A channel is what one output is computed from, so a layer gives `blocks @ rows`, group by group.
    """
    at, groups = np.arange(np.prod(shape)).reshape(shape), attributes(node).get("group", 1)
    if node.op_type == "Conv":
        return at.reshape(groups, shape[0] // groups, -1)
    if node.op_type == "ConvTranspose":
        at = np.flip(at, tuple(range(2, len(shape))))  # it is a convolution with the kernel turned round
        blocks = at.reshape(groups, shape[0] // groups, shape[1], -1)
        return blocks.swapaxes(1, 2).reshape(groups, shape[1], -1)
    if node.op_type == "LSTM":
        return at  # directions, gates, width
    if len(shape) != 2:
        return at.reshape(1, 1, -1)
    return at[None] if node.op_type == "Gather" or attributes(node).get("transB") else at.T[None]


def has_rows(node: onnx.NodeProto, shape: tuple[int, ...]) -> bool:
    """Whether the inputs that a node's weight meets can be written as rows."""
    if node.op_type in ("Gemm", "MatMul"):
        return len(shape) == 2
    settings = attributes(node)
    is_plain = settings.get("auto_pad", b"NOTSET") == b"NOTSET" and "output_shape" not in settings
    return node.op_type == "Conv" or (node.op_type == "ConvTranspose" and is_plain)


def rows(node: onnx.NodeProto, shape: tuple[int, ...], values: Floats) -> Iterator[Floats]:
    """What a node's weight is multiplied with: (groups, positions, width), a part at a time.

    Args:
        node: one that `has_rows`.
        shape: of its weight.
        values: of its first input: (B, C, ...) for a convolution, (..., K) for a matrix product.
    """
    settings = attributes(node)
    if node.op_type in ("Gemm", "MatMul"):
        yield (values.T if settings.get("transA") else values).reshape(1, -1, shape[1 if settings.get("transB") else 0])
        return
    groups, windows = settings.get("group", 1), _windows(node, shape[2:], values)
    width = shape[1] if node.op_type == "Conv" else shape[0] // groups
    step = max(1, LARGEST // max(1, windows[:1].size))
    for start in range(0, len(windows), step):
        part = windows[start : start + step]
        part = part.reshape(len(part), groups, width, *part.shape[2:])
        # (B, groups, channels, outputs ..., kernel ...) -> (groups, B * outputs, channels * kernel)
        part = np.moveaxis(part, [1, 2], [0, part.ndim - 1 - len(shape[2:])])
        yield part.reshape(groups, -1, int(width * np.prod(shape[2:])))


def _windows(node: onnx.NodeProto, kernel: tuple[int, ...], values: Floats) -> Floats:
    """What the kernel lies on at each place: (B, C, outputs ..., kernel ...)."""
    settings = attributes(node)
    dilations, strides = (settings.get(name, [1] * len(kernel)) for name in ("dilations", "strides"))
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    margins = _margins(node, values.shape[2:], spans, strides)
    if node.op_type == "ConvTranspose":
        values, strides = _spread(values, strides), [1] * len(kernel)
    values = np.pad(values, [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in margins)])
    ends = zip(margins, values.shape[2:], strict=True)
    values = values[_inner(slice(max(-a, 0), size - max(-b, 0)) for (a, b), size in ends)]
    windows = np.lib.stride_tricks.sliding_window_view(values, spans, tuple(range(2, values.ndim)))
    return np.asarray(windows[_inner(slice(None, None, step) for step in (*strides, *dilations))])


def _inner(slices: Iterable[slice]) -> tuple[slice, ...]:
    """Slices along the axes behind the batch and the channels."""
    return slice(None), slice(None), *slices


def _spread(values: Floats, strides: list[int]) -> Floats:
    """The values with zeros between them, as a transposed convolution sees them."""
    sizes = [(size - 1) * stride + 1 for size, stride in zip(values.shape[2:], strides, strict=True)]
    wide = np.zeros((*values.shape[:2], *sizes), values.dtype)
    wide[_inner(slice(None, None, stride) for stride in strides)] = values
    return wide


def _margins(
    node: onnx.NodeProto, sizes: tuple[int, ...], spans: list[int], strides: list[int]
) -> list[tuple[int, int]]:
    """How many zeros stand before and after the values along each axis; below zero where values are cut off."""
    settings, count = attributes(node), len(spans)
    pads = settings.get("pads", [0] * 2 * count)
    pairs = list(zip(pads[:count], pads[count:], strict=True))
    if node.op_type == "ConvTranspose":
        more = settings.get("output_padding", [0] * count)
        return [(s - 1 - a, s - 1 - b + m) for s, (a, b), m in zip(spans, pairs, more, strict=True)]
    automatic = settings.get("auto_pad", b"NOTSET")
    if automatic not in (b"SAME_UPPER", b"SAME_LOWER"):
        return [(0, 0)] * count if automatic == b"VALID" else pairs
    totals = [
        max((-(-size // stride) - 1) * stride + span - size, 0)
        for size, stride, span in zip(sizes, strides, spans, strict=True)
    ]
    uppers = [(t // 2, t - t // 2) for t in totals]
    return uppers if automatic == b"SAME_UPPER" else [(b, a) for a, b in uppers]
