#!/usr/bin/env bash
# onnxruntime 1.31.1: scales for the inputs of a square weight are taken for scales of its outputs, without a word.
#
# Behaviour: a DequantizeLinear has a scale for each entry of its `axis`. ONNX Runtime makes it and the Conv, MatMul or
# Gemm behind it one integer kernel, which has a scale for each output channel, and does not look which axis the file
# names. Where the weight has as many inputs as outputs the kernel answers something else than the file says, and than
# ONNX Runtime does without optimizations; along the axis of the outputs both are the same.
# Output seen (largest difference between with and without optimizations, over the largest answer):
#   Conv, scales along the outputs: 0.00, along the inputs: 0.88 (QLinearConv)
#   MatMul, scales along the outputs: 0.00, along the inputs: 1.17 (MatMulIntegerToFloat)
#   Gemm, scales along the outputs: 0.00, along the inputs: 0.53 (QGemm)
#
# Shrinkline's stages write the axis of the outputs. After each stage it warns of files with another ("scales along a wrong
# axis", pipeline/measure/kernels/patterns/layouts.py).
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

RNG = np.random.default_rng(0)
SHAPES = {  # of the input and the weight, and the weight's axes of outputs and inputs
    "Conv": ([1, 16, 8, 8], (16, 16, 3, 3), 0, 1),
    "MatMul": ([1, 5, 16], (16, 16), 1, 0),
    "Gemm": ([5, 16], (16, 16), 1, 0),
}


def answer(optimize):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = "o.onnx", 4
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession("g.onnx", options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


def compared(product, axis):
    """The difference that optimizations make, as a share, and what they make of the product."""
    shape, weight, *_ = SHAPES[product]
    values = {"s": np.float32(0.02), "z": np.uint8(128), "w": RNG.integers(-127, 127, weight).astype(np.int8)}
    values |= {"t": np.linspace(0.001, 0.02, 16, dtype=np.float32), "u": np.zeros(16, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "t", "u"], ["v"], axis=axis),
        helper.make_node(product, ["d", "v"], ["y" if product != "Conv" else "c"]),
    ]
    if product == "Conv":
        values["r"] = np.float32(0.2)
        nodes += [helper.make_node("QuantizeLinear", ["c", "r", "z"], ["cq"])]
        nodes += [helper.make_node("DequantizeLinear", ["cq", "r", "z"], ["y"])]
    sizes = {"x": shape, "y": [None] * len(shape)}
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)] for name, dims in sizes.items()]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", ends[0], ends[1], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "g.onnx")
    plain, optimized = answer(False), answer(True)
    kernels = [node.op_type for node in onnx.load("o.onnx").graph.node]
    kernel = next(name for name in kernels if name in ("QLinearConv", "MatMulIntegerToFloat", "QGemm"))
    return np.abs(plain - optimized).max() / np.abs(plain).max(), kernel


for product, (shape, _, outputs, inputs) in SHAPES.items():
    X = RNG.random(shape, dtype=np.float32)
    right, _ = compared(product, outputs)
    wrong, kernel = compared(product, inputs)
    print(f"{product}, scales along the outputs: {right:.2f}, along the inputs: {wrong:.2f} ({kernel})")
    if right > 0.05 or wrong < 0.2:
        raise SystemExit("this has changed")
PY
