#!/usr/bin/env bash
# onnxruntime 1.31.1: its fp16 converter rounds a value to fp16 between two nodes that both stay in fp32.
#
# Behaviour: convert_float_to_float16 of onnxruntime.transformers.float16 puts a Cast to fp16 behind every output of a node that
# stays in fp32 (`node_block_list`, `op_block_list`, or its own list), and a Cast back before every input of one. Where two such
# nodes follow each other the value is cast to fp16 and back, so that one beyond 65504 becomes infinite all the same.
# Output seen: fp32 [12.], with both nodes in fp32 [inf]
#
# Shrinkline leaves these two casts out (stages/quantize/halves/casts.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6 onnx-ir ml_dtypes
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16

assert onnxruntime.__version__ == "1.31.1"
nodes = [
    helper.make_node("Exp", ["x"], ["large"], "first"),
    helper.make_node("Log", ["large"], ["y"], "second"),
]
ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])] for name in ("x", "y")]
model = helper.make_model(helper.make_graph(nodes, "g", *ends), opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
x = np.array([12], np.float32)


def answer(proto):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


before = answer(model)
after = answer(convert_float_to_float16(model, keep_io_types=True, node_block_list=["first", "second"]))
assert np.allclose(before, 12), before
assert np.isinf(after).all(), f"it is {after}: this has changed"
print(f"fp32 {before}, with both nodes in fp32 {after}")
PY
