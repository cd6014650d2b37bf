"""What is known of the inputs of layers: the sums over the calibration data that rounding and biases are chosen by."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from pipeline.forms.deployed.values import Values
from pipeline.forms.sandbox.frames import Arrays
from stages.quantize.rounding.codes import Floats
from stages.quantize.rounding.layout import attributes, rows


class Sums(NamedTuple):
    """Of the rows x that a layer's weight meets: how many they are, their sum and the sum of x x^T.

    Args:
        number: how many rows.
        total: (groups, width).
        products: (groups, width, width).
    """

    number: int
    total: Floats
    products: Floats

    def around(self, mean: bool) -> Floats:
        """The sum of x x^T, or of (x - m)(x - m)^T where m is the mean: what is left when that is made good."""
        products = self.products.astype(np.float64)
        return products - np.einsum("gi,gj->gij", self.total, self.total) / max(self.number, 1) if mean else products

    @property
    def mean(self) -> Floats:
        """The mean row: (groups, width)."""
        return self.total / max(self.number, 1)


class Moments:
    """Sums over the inputs of layers, as the fp32 graph computes them, batch by batch.

    They take 4 bytes times the square of the width for each input that layers read alike.

    Args:
        source: the graph's file; one with more outputs is written beside it.
        nodes: of each layer, with the shape of its weight.
    """

    def __init__(self, source: Path, nodes: list[tuple[onnx.NodeProto, tuple[int, ...]]]) -> None:
        self.nodes: dict[str, tuple[onnx.NodeProto, tuple[int, ...]]] = {}
        for node, shape in nodes:
            self.nodes.setdefault(self._key(node, shape), (node, shape))
        self.sums: dict[str, Sums] = {}
        self.values = Values(source, sorted({node.input[0] for node, _ in nodes}))

    def add(self, batch: Arrays) -> None:
        """Count a batch too. Raises ValueError where a layer's inputs are not finite."""
        values = self.values.of(batch)
        for key, (node, shape) in self.nodes.items():
            if not np.isfinite(values[node.input[0]]).all():
                raise ValueError(f"the calibration data give the node `{node.name}` inputs that are not finite")
            for part in rows(node, shape, values[node.input[0]].astype(np.float32, copy=False)):
                new = part.shape[1], part.sum(1, dtype=np.float64), part.swapaxes(1, 2) @ part
                self.sums[key] = Sums(*(old + one for old, one in zip(self.sums.get(key, (0, 0, 0)), new, strict=True)))

    def save(self, path: Path) -> None:
        """Keep the sums of all batches in an .npz file."""
        pairs = ((key, part, value) for key, sums in self.sums.items() for part, value in sums._asdict().items())
        arrays: dict[str, Any] = {f"{part}.{key}": np.asarray(value) for key, part, value in pairs}
        with path.open("wb") as file:
            np.savez(file, **arrays)

    def restore(self, path: Path) -> bool:
        """Take up what `save` wrote, of which more layers do no harm; whether it has all that are needed."""
        with np.load(path) as arrays:
            names = {f"{part}.{key}": (part, key) for key in self.nodes for part in Sums._fields}
            if not {*names} <= {*arrays}:
                return False
            for key in self.nodes:
                total, products = (arrays[f"{part}.{key}"] for part in ("total", "products"))
                self.sums[key] = Sums(int(arrays[f"number.{key}"]), total, products)
        return True

    def of(self, node: onnx.NodeProto, shape: tuple[int, ...]) -> Sums:
        """The sums of a layer."""
        return self.sums[self._key(node, shape)]

    @staticmethod
    def _key(node: onnx.NodeProto, shape: tuple[int, ...]) -> str:
        """The same for nodes whose weights meet the same rows, such as the products that attention begins with."""
        kernel = shape[2:] if node.op_type.startswith("Conv") else ()
        return f"{node.input[0]} {node.op_type} {kernel} {sorted(attributes(node).items())}"
