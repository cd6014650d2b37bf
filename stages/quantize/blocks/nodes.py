"""The operators of ONNX Runtime that read weights in blocks: which nodes become one, and what takes their place."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from pipeline.forms.graph import refill
from stages.quantize.blocks.rows import Rows, packed
from stages.quantize.rounding.layout import WEIGHTS, attributes

DOMAIN = "com.microsoft"
INT8 = 4
"""The `accuracy_level` of MatMulNBits at which its inputs become 8 bits, block by block."""
Tensors = dict[str, onnx.TensorProto]


def weight_of(node: onnx.NodeProto) -> str:
    """The name of a node's weight."""
    return str(node.input[WEIGHTS[node.op_type][0]])


def fits(node: onnx.NodeProto, tensors: Tensors, bits: int) -> bool:
    """Whether a node has a counterpart that reads its weight in blocks.

    Args:
        node: a MatMul, Gemm or Gather.
        tensors: the constants of its graph by name.
        bits: of its weight.
    """
    weight, settings = tensors.get(weight_of(node)), attributes(node)
    if weight is None or weight.data_type != TensorProto.FLOAT or len(weight.dims) != 2:
        return False
    if node.op_type == "Gather":
        return settings.get("axis", 0) in (0, -2) and weight.dims[1] % (8 // bits) == 0
    if node.op_type == "MatMul":
        return True
    width = weight.dims[0 if settings.get("transB") else 1]
    has_bias = len(node.input) > 2 and node.input[2]
    is_bias = not has_bias or (node.input[2] in tensors and [*tensors[node.input[2]].dims] == [width])
    factors = [settings[name] for name in ("alpha", "beta") if name in settings]
    return is_bias and not settings.get("transA") and all(factor == 1 for factor in factors)


def rows_of(node: onnx.NodeProto, array: NDArray[np.floating]) -> NDArray[np.floating]:
    """A node's weight as (rows, width): a row for each output, or of a table."""
    as_it_is = node.op_type == "Gather" or (node.op_type == "Gemm" and attributes(node).get("transB"))
    return array if as_it_is else array.T


def put(graph: onnx.GraphProto, node: onnx.NodeProto, rows: Rows, has_int8_inputs: bool) -> None:
    """Put, in place, the counterpart where a node is, of the same name, and its weight among the constants.

    Args:
        graph: the graph.
        node: one of it, for which `fits` holds.
        rows: its weight.
        has_int8_inputs: whether the product is of its inputs in 8 bits, which are rounded at each call.
    """
    is_table = node.op_type == "Gather"
    count, _, size = rows.codes.shape
    flat = rows.codes.reshape(count, -1)[:, : rows.width]
    codes = packed(flat, rows.bits) if is_table else packed(rows.codes, rows.bits)
    parts = {"codes": codes, "scales": rows.scales.astype(np.float32)}
    if rows.zeros is not None:
        fractions = rows.zeros.astype(np.float32)
        parts["zeros"] = fractions if rows.has_fractions else packed(rows.zeros, rows.bits)
    stem = f"{weight_of(node)}_{'table' if is_table else 'rows'}_"
    there = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(
        numpy_helper.from_array(array, stem + part) for part, array in parts.items() if stem + part not in there
    )
    zeros = [stem + "zeros"] if "zeros" in parts else []
    if is_table:
        inputs = [stem + "codes", node.input[1], stem + "scales", *zeros]
        settings = {"gather_axis": 0, "quantize_axis": 1}
    else:
        inputs = [node.input[0], stem + "codes", stem + "scales", *zeros]
        if bias := [*node.input[2:3]]:
            inputs += [""] * (5 - len(inputs)) + bias
        settings = {"K": rows.width, "N": count} | ({"accuracy_level": INT8} if has_int8_inputs else {})
    settings |= {"bits": rows.bits, "block_size": size}
    kind = "GatherBlockQuantized" if is_table else "MatMulNBits"
    counterpart = onnx.helper.make_node(kind, inputs, node.output, node.name, domain=DOMAIN, **settings)
    node.CopyFrom(counterpart)


def import_operators(proto: onnx.ModelProto) -> None:
    """Name the set of operators that `put` writes, in place."""
    others = [entry for entry in proto.opset_import if entry.domain != DOMAIN]
    refill(proto.opset_import, [*others, onnx.helper.make_opsetid(DOMAIN, 1)])
