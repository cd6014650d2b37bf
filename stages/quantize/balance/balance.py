"""What `quantize.static` does to the channels of a graph before it measures ranges."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import onnx

from stages.quantize.balance.equalize import equalize
from stages.quantize.balance.pairs import Graph
from stages.quantize.balance.smooth import places, smooth
from stages.quantize.graphs.reasons import EQUALIZED, SMOOTHED
from stages.quantize.quantizing.calibration_data import CalibrationData
from stages.quantize.steps.files import Files, Left


class Balance(NamedTuple):
    """How channels are made alike.

    Args:
        smooth: strength of SmoothQuant; None without.
        equalize: whether layers are equalized.
    """

    smooth: float | None
    equalize: bool

    @property
    def passes(self) -> int:
        """How often the calibration data are read: for what it does, and for the ranges."""
        return 1 if self.smooth is None else 2


def balanced(files: Files, data: CalibrationData, settings: Mapping[str, Any]) -> tuple[CalibrationData, Left]:
    """Balance the graph in `files.source`, which is written anew; the rest of the data, and which nodes it touched.

    Args:
        files: the graph's file.
        data: as many passes over the calibration data as `Balance.passes`, one after the other.
        settings: of `Balance`.

    Raises:
        ValueError: the graph has no place for it.
    """
    balance = Balance(**settings)
    if balance == Balance(None, False):
        return data, {}
    proto = onnx.load(files.source)
    notes = {}
    if balance.equalize:
        notes[EQUALIZED] = equalize(proto.graph)
        if not notes[EQUALIZED]:
            problem = "no layer alone reads another one, with at most a Relu or a pooling between"
            raise ValueError(f"{problem}, so nothing can be equalized. Leave `equalize` out")
        files.save(proto, files.source)
        proto = onnx.load(files.source)  # for what is saved beside has left the graph
    if balance.smooth is not None:
        if not places(Graph(proto.graph)):
            raise ValueError("no matrix product reads a LayerNormalization or another product. Leave `smooth` out")
        each = len(data) // balance.passes
        first, data = (CalibrationData(data.batches, each) for _ in range(balance.passes))
        notes[SMOOTHED] = smooth(proto.graph, balance.smooth, files.source, first)
        files.save(proto, files.source)
    return data, notes
