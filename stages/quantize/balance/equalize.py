"""Cross-layer equalization: channels between two layers get the same largest weight on both sides."""

import numpy as np
import onnx

from stages.quantize.balance.channels import Floats, inputs, outputs
from stages.quantize.balance.factors import apply
from stages.quantize.balance.pairs import Graph, Pair

ROUNDS = 50
CLOSE = 1e-3


def equalize(proto: onnx.GraphProto) -> list[str]:
    """Equalize the layers of a graph, in place; the names of the nodes that read other channels than before.

    For each channel i between two layers, of largest weights a_i before it and b_i behind it, s_i = sqrt(a_i / b_i):
    the first layer's weights and bias are divided by it, the second's weights multiplied, pair after pair, until none
    changes. No bias becomes larger than the largest of its layer: a channel of small weights may have a large one.

    Args:
        proto: in fp32, norms folded.

    Reference: Markus Nagel, Mart van Baalen, Tijmen Blankevoort and Max Welling, "Data-Free Quantization Through Weight
    Equalization and Bias Correction", 2019, arXiv:1906.04721, eq. 11 and section 4.1.
    """
    graph = Graph(proto)
    pairs = [*graph.pairs()]
    for _ in range(ROUNDS):
        changes = []
        for pair in pairs:
            factors = _factors(graph, pair)
            changes.append(float(np.abs(np.log(factors)).max()))
            apply(graph, pair, factors)
        if max(changes, default=0) < CLOSE:
            break
    return [pair.second[0].name for pair in pairs]


def _factors(graph: Graph, pair: Pair) -> Floats:
    before = outputs(pair.first, graph.array(pair.first.input[1])).astype(np.float64)
    behind = inputs(pair.second[0], graph.array(pair.second[0].input[1])).astype(np.float64)
    behind = behind.reshape(-1, pair.repeats).max(1)
    is_used = (before > 0) & (behind > 0)
    factors = np.sqrt(np.where(is_used, before, 1) / np.where(is_used, behind, 1))
    if pair.bias:
        node, place = pair.bias
        biases = np.abs(graph.array(node.input[place])).astype(np.float64)
        factors = np.maximum(factors, biases / (biases.max() or 1.0))
    return np.where(is_used, factors, 1.0)
