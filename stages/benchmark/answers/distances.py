"""How far the outputs of a runtime are from ONNX Runtime's, and how much of that is rounding."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from pipeline.errors import StageError
from pipeline.forms.graph import graphs_in

TOLERANCE = 1e-3
"""Of the range of an output, where all is computed in floats."""
STEPS = 2 / 255
"""The same where values are rounded to integers: two steps of 255. Runtimes round some to the next integer."""


@dataclass
class Apart:
    """An output of all batches: the largest distance in each example, and between what values it lies."""

    name: str
    distances: list[Any] = field(default_factory=list)
    low: float = np.inf
    high: float = -np.inf

    def add(self, ours: Any, theirs: Any) -> None:
        """Take a batch. Raises StageError where it is NaN and ONNX Runtime's is not, or has another shape."""
        self.distances.append(_distances(ours, theirs, self.name))
        finite = theirs[np.isfinite(theirs)].astype(np.float64)
        self.low, self.high = finite.min(initial=self.low), finite.max(initial=self.high)

    @property
    def shares(self) -> Any:
        """The largest distance in each example (N,), as a share of the range of the output."""
        ends = [float(value) for value in (self.low, self.high) if np.isfinite(value)]
        spread = ends[1] - ends[0] if ends else 0.0
        return np.concatenate(self.distances) / (spread or max(*map(abs, ends), 1.0))


def _distances(ours: Any, theirs: Any, name: str) -> Any:
    """The largest distance in each example (N,), of outputs whose first axis is the examples."""
    if ours.shape != theirs.shape:
        raise StageError(f"output `{name}` has the shape {ours.shape}, and in ONNX Runtime {theirs.shape}")
    if (np.isnan(ours) & ~np.isnan(theirs)).any():
        raise StageError(f"output `{name}` is NaN where it is a number in ONNX Runtime")
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(invalid="ignore"):
        distance = np.where((a == b) | np.isnan(b), 0.0, np.abs(a - b))
    return distance.reshape(len(distance) if distance.ndim else 1, -1).max(axis=1, initial=0)


def tolerance_of(path: Path) -> float:
    """The share of an output's range that is rounding, by what a file computes in."""
    return STEPS if rounds_values(path) else TOLERANCE


def rounds_values(path: Path) -> bool:
    """Whether values, and not weights alone, become integers in a file."""
    proto = onnx.load(path, load_external_data=False)
    bodies = [graph for body in (proto.graph, *proto.functions) for graph in graphs_in(body)]
    kinds = {node.op_type for graph in bodies for node in graph.node}
    return any(kind.startswith(("QuantizeLinear", "DynamicQuantize", "QLinear", "QGemm")) for kind in kinds)
