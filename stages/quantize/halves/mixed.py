"""Weights in 16 bits beside those in integers."""

from collections.abc import Collection

import onnx
from onnx import numpy_helper

from stages.quantize.graphs.rewrite import split_gemm
from stages.quantize.halves.graph import floats, store
from stages.quantize.halves.numbers import loss
from stages.quantize.rounding.layout import WEIGHTS


def store_in_halves(graph: onnx.GraphProto, names: Collection[str]) -> list[str]:
    """Store the weights of some nodes in fp16, in place; the names of the nodes whose weights fp16 holds.

    Args:
        graph: quantized, where these nodes compute in fp32.
        names: of the nodes, as before it was quantized.
    """
    if not names:
        return []
    known = {alias: name for name in names for alias in (name, split_gemm(onnx.NodeProto(name=name, op_type="Gemm")))}
    tensors = {tensor.name: tensor for tensor in floats(graph)}
    halves: dict[str, onnx.TensorProto] = {}
    stored = []
    for node in (node for node in graph.node if node.name in known):
        own = [node.input[place] for place in WEIGHTS.get(node.op_type, ()) if node.input[place] in tensors]
        if own and not any(loss(numpy_helper.to_array(tensors[name]), "fp16").overflowing for name in own):
            halves |= {name: tensors[name] for name in own}
            stored.append(known[node.name])
    store(graph, "fp16", halves.values())
    return stored
