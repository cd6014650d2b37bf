"""SmoothQuant: outliers among the inputs of matrix products move into their weights."""

from pathlib import Path

import numpy as np
import onnx

from pipeline.forms.deployed.values import Values
from pipeline.forms.sandbox.frames import Arrays
from stages.quantize.balance.channels import Floats, inputs
from stages.quantize.balance.factors import apply
from stages.quantize.balance.pairs import Graph, Pair
from stages.quantize.quantizing.calibration_data import CalibrationData


def places(graph: Graph) -> list[Pair]:
    """Where outliers can move: behind each LayerNormalization, and between matrix products with at most a Relu."""
    plain = [pair for pair in graph.pairs() if pair.first.op_type != "Conv"]
    return [*graph.normed(), *plain]


def smooth(proto: onnx.GraphProto, strength: float, source: Path, data: CalibrationData) -> list[str]:
    """Smooth the inputs of matrix products of a graph, in place; the names of these.

    For each channel j, of the largest input x_j on the calibration data and the largest weight w_j that it meets,
    s_j = x_j^strength / w_j^(1 - strength): what gives the inputs is divided by it, and the weights multiplied.

    Args:
        proto: in fp32.
        strength: 0 to 1, how much of the outliers moves; 0.5 is the usual, more where activations have more.
        source: its file; one with more outputs is written beside it.
        data: read once.

    Reference: Guangxuan Xiao, Ji Lin, Mickael Seznec, Hao Wu, Julien Demouth and Song Han, "SmoothQuant: Accurate and
    Efficient Post-Training Quantization for Large Language Models", 2022, arXiv:2211.10438, eq. 4.
    """
    graph = Graph(proto)
    pairs = places(graph)
    peaks = _peaks(source, [pair.value for pair in pairs], data)
    for pair in pairs:
        weights = np.max([inputs(node, graph.array(node.input[1])) for node in pair.second], 0).astype(np.float64)
        values = peaks[pair.value]
        is_used = (values > 0) & (weights > 0)
        values, weights = np.where(is_used, values, 1), np.where(is_used, weights, 1)
        apply(graph, pair, np.where(is_used, values**strength / weights ** (1 - strength), 1))
    return [node.name for pair in pairs for node in pair.second]


def _peaks(source: Path, names: list[str], data: CalibrationData) -> dict[str, Floats]:
    """For each value the largest size in each of its last axis: (channels,)."""
    values = Values(source, names)
    peaks: dict[str, Floats] = {}

    def add(batch: Arrays) -> None:
        computed = values.of(batch)
        for name in dict.fromkeys(names):
            value = computed[name]
            if not np.isfinite(value).all():
                raise ValueError("the calibration data give inputs of matrix products that are not finite")
            sizes = np.abs(value).reshape(-1, value.shape[-1]).max(0).astype(np.float64)
            peaks[name] = np.maximum(peaks.get(name, sizes), sizes)

    data.also = add
    data.read()
    return peaks
