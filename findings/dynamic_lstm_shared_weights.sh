#!/usr/bin/env bash
# onnxruntime 1.31.1: quantize_dynamic turns the weights that two LSTMs share twice, and the second one computes with them.
#
# Behaviour: two LSTM nodes read the same W and R, as layers with tied weights do. For each node the quantizer takes the
# 8-bit weights, which it made once, reshapes and transposes them, and puts them back in their place: after the second node
# they are scrambled for both. The file loads and runs, and its result is another one. With copies of W and R for the second
# node it is right.
# Output seen: "copies: 0.01, shared: 0.69" (the largest difference from the fp32 outputs, over their range).
#
# Shrinkline gives each LSTM weights of its own while it quantizes (stages/quantize/graphs/rewrite.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

logging.disable()
onnxruntime.set_default_logger_severity(4)


def network(second):
    """Two LSTMs in a row: the second one reads the weights `w` and `r`, or copies of them."""
    draws = np.random.default_rng(0)
    weights = {name: draws.normal(size=(1, 32, 8)).astype(np.float32) * 0.3 for name in ("w", "r")}
    copies = {f"{name}{second}": value for name, value in weights.items()}
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["h"], hidden_size=8),
        helper.make_node("Squeeze", ["h", "one"], ["s"]),
        helper.make_node("LSTM", ["s", f"w{second}", f"r{second}"], ["y"], hidden_size=8),
    ]
    shapes = {"x": [5, 4, 8], "y": [5, 1, 4, 8]}
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in shapes.items()]
    values = {**weights, **copies, "one": np.array([1])}
    graph = helper.make_graph(nodes, "g", *ends, [numpy_helper.from_array(value, name) for name, value in values.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(path, batch):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["y"], {"x": batch})[0]


def difference(second):
    onnx.save(network(second), "fp32.onnx")
    onnx.checker.check_model("fp32.onnx")
    quantize_dynamic("fp32.onnx", "int8.onnx", op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8)
    batch = np.random.default_rng(1).normal(size=(5, 4, 8)).astype(np.float32)
    before, after = (run(name, batch) for name in ("fp32.onnx", "int8.onnx"))
    return float(np.abs(before - after).max() / np.ptp(before))


right, wrong = difference("_copy"), difference("")
print(f"copies: {right:.2f}, shared: {wrong:.2f}")
raise SystemExit(0 if right < 0.05 < 0.1 < wrong else "the behaviour has changed")
PY
