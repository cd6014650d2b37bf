#!/usr/bin/env bash
# onnxruntime 1.31.1: its fp16 converter makes a file that its runtime refuses where two nodes in fp32 read one value.
#
# Behaviour: convert_float_to_float16 of onnxruntime.transformers.float16 puts a Cast before every input of a node that stays
# in fp32 (`node_block_list`, `op_block_list`, or its own list) and calls its output NAME_cast_to_fp32. For a second node
# that reads the same value it adds a second Cast with the same output.
# Output seen: two nodes with same node name (h_cast_to_fp32_node)
#
# Shrinkline keeps the first of the casts (stages/quantize/halves/casts.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6 onnx-ir ml_dtypes
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16

assert onnxruntime.__version__ == "1.31.1"
nodes = [
    helper.make_node("Relu", ["x"], ["h"], "relu"),
    helper.make_node("Exp", ["h"], ["a"], "first"),
    helper.make_node("Sqrt", ["h"], ["b"], "second"),
    helper.make_node("Add", ["a", "b"], ["y"], "sum"),
]
ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])] for name in ("x", "y")]
model = helper.make_model(helper.make_graph(nodes, "g", *ends), opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
half = convert_float_to_float16(model, keep_io_types=True, node_block_list=["first", "second"])
outputs = [name for node in half.graph.node for name in node.output]
assert outputs.count("h_cast_to_fp32") == 2, outputs
try:
    onnxruntime.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
except Exception as error:
    assert "two nodes with same node name (h_cast_to_fp32_node)" in str(error), error
    print("two nodes with same node name (h_cast_to_fp32_node)")
else:
    raise SystemExit("it loads: this has changed")
PY
