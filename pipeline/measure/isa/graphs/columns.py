"""The values that products are summed up over, in the order in which ONNX Runtime's kernels take them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.measure.isa.errors import UnknownError
from pipeline.measure.isa.graphs.pairs import Pairs, joined, saturable
from pipeline.measure.isa.graphs.writer import Writer

ALL = 2**63 - 1
"""The end of an axis."""


@dataclass(frozen=True)
class Window:
    """The windows of a convolution: of one to three axes, in groups of channels.

    Args:
        kernel, strides, dilations: a number an axis.
        pads: those before each axis, then those behind each.
        groups: of channels.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, node: onnx.NodeProto, kernel: tuple[int, ...]) -> "Window":
        """Those of a node. Raises UnknownError for padding by the size of the input."""
        read: dict[str, Any] = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        rank = len(kernel)
        if read.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            problem = f"the convolution `{node.name}` has {read['auto_pad'].decode()} for its padding"
            raise UnknownError(problem, expected="numbers", fix="Export it with explicit pads")
        ones, pads = [1] * rank, read.get("pads", [0] * 2 * rank)
        strides, dilations = (tuple(read.get(name, ones)) for name in ("strides", "dilations"))
        return cls(kernel, strides, dilations, tuple(pads), read.get("group", 1))

    def pairs(self, weight: NDArray[np.int8]) -> Pairs:
        """Those of a weight (N, C/G, ...) that can saturate: each group goes window by window, channel by channel."""
        groups = np.split(weight.reshape(*weight.shape[:2], -1), self.groups)
        channels, size = weight.shape[1], len(groups[0])
        parts = []
        for i, group in enumerate(groups):
            some = saturable(group.transpose(2, 1, 0).reshape(-1, size))
            first, second = (
                at // channels * channels * self.groups + i * channels + at % channels
                for at in (some.first, some.second)
            )
            parts.append(Pairs(first, second, some.column + i * size, some.weights))
        return joined(parts)

    def write(self, writer: Writer, value: str, channels: int, zero_point: str) -> str:
        """The values (B, windows * C, positions) of a convolution's input (B, C, ...)."""
        rank = len(self.kernel)
        if any(self.pads):
            before, behind = self.pads[:rank], self.pads[rank:]
            value = writer.add("Pad", value, writer.integers(0, 0, *before, 0, 0, *behind), zero_point)
        parts = [self._moved(writer, value, place) for place in np.ndindex(*self.kernel)]
        whole = parts[0] if len(parts) == 1 else writer.add("Concat", *parts, axis=1)
        return writer.add("Reshape", whole, writer.integers(0, channels * len(parts), -1))

    def _moved(self, writer: Writer, value: str, place: tuple[int, ...]) -> str:
        """What stands at a place of each window."""
        if max(self.kernel) == 1 == max(self.strides):
            return value
        starts = [at * by for at, by in zip(place, self.dilations, strict=True)]
        behind = [(size - 1 - at) * by for size, at, by in zip(self.kernel, place, self.dilations, strict=True)]
        ends = [-size if size else ALL for size in behind]
        axes = range(2, 2 + len(place))
        return writer.add("Slice", value, *(writer.integers(*some) for some in (starts, ends, axes, self.strides)))


def rows(writer: Writer, value: str, depth: int) -> str:
    """The values (1, K, rows) of a matrix product's first input (..., K)."""
    turned = writer.add("Transpose", writer.add("Reshape", value, writer.integers(-1, depth)), perm=[1, 0])
    return writer.add("Reshape", turned, writer.integers(1, depth, -1))


def as_rows(writer: Writer, sums: str, outputs: int, like: str) -> str:
    """Sums (1, N, rows) in the shape of the product `like` (..., N)."""
    turned = writer.add("Transpose", writer.add("Reshape", sums, writer.integers(outputs, -1)), perm=[1, 0])
    return writer.add("Reshape", turned, writer.add("Shape", like))
