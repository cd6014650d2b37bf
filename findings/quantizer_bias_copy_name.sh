#!/usr/bin/env bash
# onnxruntime 1.31.1: quantize_static gives the copy of a bias that two layers share the name of another value.
#
# Behaviour: two convolutions read one bias `b`, and the second one's output is called `b0`. The quantizer makes a copy of
# the bias for the second layer, calls it `b` and the first number that no initializer has behind it, `b0`, and does not
# look among the graph's other values. In the file that it writes two values have one name, and what reads the second
# convolution's output reads the bias: another result, without an error. With the output called `k` it is right.
# Output seen: "k: 0.01, b0: 0.60" (the largest difference from the fp32 outputs, over their range).
#
# Shrinkline gives all values names that begin no other before it quantizes (stages/quantize/graphs/names.py).
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
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

logging.disable()
onnxruntime.set_default_logger_severity(4)


class Batches(CalibrationDataReader):
    def __init__(self, batch):
        self.rest = [{"x": batch}]

    def get_next(self):
        return self.rest.pop() if self.rest else None


def network(second):
    """conv(x) + conv(conv(x)), averaged over the image; both with the bias `b`."""
    draws = np.random.default_rng(0)
    weights = {"w": draws.normal(size=(8, 3, 3, 3)), "v": draws.normal(size=(8, 8, 3, 3)), "b": draws.normal(size=8)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], pads=[1] * 4),
        helper.make_node("Conv", ["a", "v", "b"], [second], pads=[1] * 4),
        helper.make_node("Add", ["a", second], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["y"]),
    ]
    shapes = {"x": ["n", 3, 8, 8], "y": ["n", 8, 1, 1]}
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in shapes.items()]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", *ends, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(path, batch):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["y"], {"x": batch})[0]


def difference(second):
    onnx.save(network(second), "fp32.onnx")
    onnx.checker.check_model("fp32.onnx")
    batch = np.random.default_rng(1).normal(size=(64, 3, 8, 8)).astype(np.float32)
    quantize_static("fp32.onnx", "int8.onnx", Batches(batch), weight_type=QuantType.QInt8, per_channel=True,
                    reduce_range=True, extra_options={"QuantizeBias": False})
    before, after = (run(name, batch) for name in ("fp32.onnx", "int8.onnx"))
    return float(np.abs(before - after).max() / np.ptp(before))


right, wrong = difference("k"), difference("b0")
print(f"k: {right:.2f}, b0: {wrong:.2f}")
raise SystemExit(0 if right < 0.05 < 0.2 < wrong else "the behaviour has changed")
PY
