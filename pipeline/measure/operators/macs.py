"""Multiply-accumulates (MACs) of one node of an ONNX graph, by operator, and which nodes cannot be counted."""

import re
from collections.abc import Callable
from math import prod

import onnx

from pipeline.forms.graph import graphs_inside

Shapes = dict[str, list[int]]
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STANDARD = ("", "ai.onnx")
SUMS = re.compile("Attention|Conv|Gemm|GRU|LSTM|MatMul|MoE|RNN")


def _convolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    weight = shapes[node.input[3 if node.op_type == "QLinearConv" else 1]]
    return prod(shapes[node.output[0]]) * prod(weight[1:])


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]


def _matmul(node: onnx.NodeProto, shapes: Shapes) -> int:
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _recurrent(node: onnx.NodeProto, shapes: Shapes) -> int:
    steps, batch, _ = shapes[node.input[0]]
    directions, rows, inputs = shapes[node.input[1]]
    hidden = rows // GATES[node.op_type]
    return steps * batch * directions * rows * (inputs + hidden)


def _quantized_recurrent(node: onnx.NodeProto, shapes: Shapes) -> int:
    steps, batch, _ = shapes[node.input[0]]
    return steps * batch * (prod(shapes[node.input[1]]) + prod(shapes[node.input[2]]))


def _attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    queries, keys, _ = (shapes[name] for name in node.input[:3])
    return (prod(queries) + prod(shapes[node.output[0]])) * keys[-2]


def _einsum(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Of two factors: the product of all that is summed or kept; "..." stands for the leading axes."""
    terms = node.attribute[0].s.decode().replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        leading_axes = len(shapes[name]) - len(term.replace("...", ""))
        letters = term.replace("...", "0123456789"[10 - leading_axes :])
        sizes |= dict(zip(letters, shapes[name], strict=True))
    return prod(sizes.values()) * (len(terms) - 1)


def _fused_matmul(node: onnx.NodeProto, shapes: Shapes) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][-2 if transposed else -1]


def _packed_matmul(node: onnx.NodeProto, shapes: Shapes) -> int:
    return prod(shapes[node.output[0]]) * attribute(node, "K")


def _packed_attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Of one weight for queries, keys and values, without keys and values of earlier steps."""
    batch, steps, _ = shapes[node.input[0]]
    return batch * steps * (prod(shapes[node.input[1]]) + 2 * steps * shapes[node.output[0]][-1])


COUNTERS: dict[str, Callable[[onnx.NodeProto, Shapes], int]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "DeformConv", "FusedConv", "NhwcFusedConv", "QLinearConv"), _convolution),
    "ConvTranspose": lambda node, shapes: prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:]),
    **dict.fromkeys(("FusedGemm", "Gemm", "QGemm"), _gemm),
    **dict.fromkeys(
        ("DynamicQuantizeMatMul", "MatMul", "MatMulInteger", "MatMulIntegerToFloat", "QLinearMatMul"), _matmul
    ),
    "FusedMatMul": _fused_matmul,
    "MatMulNBits": _packed_matmul,
    **dict.fromkeys(GATES, _recurrent),
    "DynamicQuantizeLSTM": _quantized_recurrent,
    "Attention": _attention,
    "MultiHeadAttention": _attention,
    "QAttention": _packed_attention,
    "com.microsoft.Attention": _packed_attention,
    "Einsum": _einsum,
}
NO_SUMS = {
    "BiasAdd", "BiasGelu", "BiasSoftmax", "DequantizeLinear", "EmbedLayerNormalization", "FastGelu",
    "GatherBlockQuantized", "GatherND", "GroupNorm", "QEmbedLayerNormalization", "QLinearAdd", "QLinearConcat",
    "QLinearMul", "QLinearWhere", "QuantizeLinear", "RelativePositionBias", "RotaryEmbedding", "SkipGroupNorm",
    "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "TorchEmbedding",
}  # fmt: skip
"""Operators outside the standard that read constants, and sum no products of them."""


def counter(node: onnx.NodeProto) -> Callable[[onnx.NodeProto, Shapes], int] | None:
    """What counts a node; None for one that sums no products, or that `uncounted` names."""
    return COUNTERS.get(f"{node.domain}.{node.op_type}") or COUNTERS.get(node.op_type)


def uncounted(graph: onnx.GraphProto) -> list[str]:
    """What sums products and cannot be counted: operators that are not known, and those inside branches and loops."""
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    names = [f"`{node.op_type}`" for node in graph.node if _is_unknown(node, matrices)]
    for node in graph.node:
        inner = [other for part in graphs_inside(node) for other in part.node]
        names += [f"`{o.op_type}` inside `{node.op_type}`" for o in inner if counter(o) or _is_unknown(o, matrices)]
    return sorted({*names})


def _is_unknown(node: onnx.NodeProto, matrices: set[str]) -> bool:
    packed = counter(node) in (_packed_attention, _attention)
    if packed and not _is_plain_attention(node):
        return True
    if counter(node) or node.op_type in NO_SUMS:
        return False
    return bool(SUMS.search(node.op_type) or (node.domain not in STANDARD and matrices.intersection(node.input)))


def _is_plain_attention(node: onnx.NodeProto) -> bool:
    """Whether its queries, keys and values are whole: none of earlier steps, none packed together."""
    given = {place for place, name in enumerate(node.input) if name}
    if counter(node) is _packed_attention:
        return 8 not in given if node.op_type == "QAttention" else 4 not in given
    if node.op_type == "MultiHeadAttention":
        return {0, 1, 2} <= given and not given & {6, 7}
    return {0, 1, 2} <= given and not given & {4, 5}


def attribute(node: onnx.NodeProto, name: str) -> int:
    """An integer attribute that a node must have."""
    return next(int(a.i) for a in node.attribute if a.name == name)
