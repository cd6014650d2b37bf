#!/usr/bin/env bash
# onnxruntime 1.31.1: from opset 21 on a DequantizeLinear of int8 with a zero point in front of a Transpose does not load.
#
# Behaviour: the session ends with a type error about a QuantizeLinear that the file does not have: ONNX Runtime puts one
# behind the Transpose to quantize what it moves, with a zero point of uint8 though the integers are int8. In opset 20 the
# same nodes load, and in opset 21 without the zero point, which is optional; so do uint8 integers, and all of them where
# nothing is optimized. The file passes onnx's checker with full_check.
# Output seen:
#   opset 20, int8, zero point: loads
#   opset 21, int8, zero point: output_dtype INT8 does not match y_zero_point type UINT8
#   opset 21, int8, no zero point: loads
#   opset 21, uint8, zero point: loads
#   opset 23, int8, zero point: output_dtype INT8 does not match y_zero_point type UINT8
#
# Shrinkline's quantize.pack tries its file in the opset before where one does not load (stages/quantize/packing).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
"$folder/env/bin/python" - > "$folder/seen" <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


def outcome(opset, kind, zero_point):
    """Whether ONNX Runtime loads integers that become floats and are transposed."""
    tensors = [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(kind(0), "z")]
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", *(["z"] if zero_point else [])], ["d"]),
        helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0]),
        helper.make_node("Relu", ["t"], ["y"]),
    ]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    ends = [helper.make_tensor_value_info("x", element, ["n", 3])], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, "n"])]
    graph = helper.make_graph(nodes, "g", ends[0], ends[1], tensors[: 1 + zero_point])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return str(error).rpartition("] ")[2].rstrip(".")
    return "loads"


for opset, kind, zero_point in [(20, np.int8, 1), (21, np.int8, 1), (21, np.int8, 0), (21, np.uint8, 1), (23, np.int8, 1)]:
    print(f"opset {opset}, {kind.__name__}, {'zero point' if zero_point else 'no zero point'}: {outcome(opset, kind, zero_point)}")
PY
cat "$folder/seen"
grep '^#   opset' "$0" | sed 's/^#   //' | diff - "$folder/seen"
