#!/usr/bin/env bash
# OpenVINO 2026.4.1: a quantized convolution runs in floats where its weight is looked up by GatherElements.
#
# Behaviour: the int8 weight of a QuantizeLinear/DequantizeLinear convolution is computed from constants alone. By Gather
# the runtime folds it and runs the convolution in integers; by GatherElements, which gives the same numbers, it computes the
# weight once when it compiles, too late for its passes, and runs the convolution in fp32, without a word. The same holds for
# CumSum, ScatterElements, BitShift, BitwiseAnd and for Mul and Div of uint8, none of which it folds.
# Output seen: "Gather: I8; GatherElements: f32".
#
# Shrinkline decodes packed weights by Gather (stages/quantize/packing/codes/decoders.py) but for very large tensors.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper, numpy_helper

draws = np.random.default_rng(0)
constants = {
    "book": np.arange(-8, 8, dtype=np.int8), "places": draws.integers(0, 16, 16 * 16 * 9).astype(np.int32),
    "shape": np.array([16, 16, 3, 3]), "s": np.float32(0.05), "z": np.uint8(128), "ws": np.full(16, 0.01, np.float32),
}  # fmt: skip


def precision(lookup):
    node = helper.make_node
    nodes = [
        node(lookup, ["book", "places"], ["flat"]), node("Reshape", ["flat", "shape"], ["w"]),
        node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "ws"], ["v"], axis=0), node("Conv", ["d", "v"], ["c"], pads=[1] * 4),
        node("QuantizeLinear", ["c", "s", "z"], ["r"]), node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]  # fmt: skip
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 8, 8])] for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", *ends, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), "net.onnx")
    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
    request = openvino.Core().compile_model("net.onnx", "CPU", hints).create_infer_request()
    request.infer({0: draws.normal(size=(1, 16, 8, 8)).astype(np.float32)})
    (kind,) = [step.exec_type for step in request.get_profiling_info() if step.node_type == "Convolution"]
    return kind.rpartition("_")[2]


seen = "; ".join(f"{lookup}: {precision(lookup)}" for lookup in ("Gather", "GatherElements"))
print(seen)
assert seen == "Gather: I8; GatherElements: f32", seen
PY
