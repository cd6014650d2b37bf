#!/usr/bin/env bash
# onnxruntime 1.31.1: a Gemm between DequantizeLinear nodes runs in integers only where its weight has a zero point.
#
# Behaviour: DequantizeLinear's zero point is optional, and 0 without one. A Conv or MatMul whose weight comes from a
# DequantizeLinear of two inputs becomes QLinearConv or MatMulIntegerToFloat; a Gemm does not: it stays a float Gemm behind
# a DequantizeLinear that runs at each call, without a word. With zeros as the third input it becomes QGemm. Where the
# Gemm's result is not quantized, a bias in fp32 keeps it from that too: without one, or as int32, it is fused.
# Output seen (operators after optimization):
#   MatMul, no zero point: ['QuantizeLinear', 'MatMulIntegerToFloat']
#   Gemm, no zero point: ['QuantizeLinear', 'DequantizeLinear', 'DequantizeLinear', 'Gemm']
#   Gemm, zero point: ['QuantizeLinear', 'QGemm']
#   Gemm, zero point, fp32 bias: ['QuantizeLinear', 'DequantizeLinear', 'DequantizeLinear', 'Gemm']
#
# Shrinkline writes weights of Gemms with a zero point, and a bias of floats as an Add behind (stages/quantize/training).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def operators(product, zero_point, bias):
    """What ONNX Runtime runs for a product of a quantized input and weight."""
    axes = ["n", 16] if product == "Gemm" else ["n", 5, 16]
    values = {"s": np.float32(0.02), "z": np.uint8(3), "w": np.arange(128, dtype=np.int8).reshape(16, 8)}
    values |= {"t": np.full(8, 0.01, np.float32), "u": np.zeros(8, np.int8), "b": np.ones(8, np.float32)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "t", *(["u"] if zero_point else [])], ["v"], axis=1),
        helper.make_node(product, ["d", "v", *(["b"] if bias else [])], ["y"]),
    ]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)], [onnx.ValueInfoProto(name="y")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", ends[0], ends[1], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), "g.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = "o.onnx", 4
    onnxruntime.InferenceSession("g.onnx", options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load("o.onnx").graph.node]


print("MatMul, no zero point:", operators("MatMul", False, False))
print("Gemm, no zero point:", operators("Gemm", False, False))
print("Gemm, zero point:", operators("Gemm", True, False))
print("Gemm, zero point, fp32 bias:", operators("Gemm", True, True))
PY
