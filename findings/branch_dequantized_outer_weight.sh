#!/usr/bin/env bash
# onnxruntime 1.31.1: a product in a branch, of an int8 weight of the graph around it, keeps a file from loading.
#
# Behaviour: ONNX lets the graphs inside If and Loop read the names of the graph around them. Where a MatMul or Gemm in
# such a graph multiplies by what a DequantizeLinear beside it makes of an int8 weight of the outer graph, the session
# is not made: the rewrite to MatMulNBits looks for the weight among the initializers of the inner graph alone. With the
# weight in the branch, or with `session.disable_quant_qdq`, the same file loads and its output is right.
# Output seen, for MatMul, and for Gemm likewise:
#   MatMul, weight in the branch: [12. 12. 12. 12.]
#   MatMul, weight of the outer graph, without QDQ rewrites: [12. 12. 12. 12.]
#   MatMul, weight of the outer graph: [ONNXRuntimeError] : 1 : FAIL : qdq_actions.cc:131 TransposeDQWeightsForMatMulNBits
#     Missing required weight: w for node:
#
# Shrinkline refuses such a file with what ONNX Runtime says; quantize.static leaves weights that branches read in fp32.
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

SIZES = {"x": 48, "y": 4}


def branch(product, name, inside):
    """A branch that multiplies x by a dequantized weight: its own, or the one of the graph around it."""
    own = name if inside else ""
    nodes = [
        helper.make_node("DequantizeLinear", [f"{own}w", f"{own}s"], [f"{name}_d"]),
        helper.make_node(product, ["x", f"{name}_d"], [f"{name}_y"]),
    ]
    output = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, ["n", 4])
    return helper.make_graph(nodes, name, [], [output], weights(own) if inside else [])


def weights(owner=""):
    arrays = {"w": np.ones((48, 4), np.int8), "s": np.float32(0.25)}
    return [numpy_helper.from_array(array, owner + name) for name, array in arrays.items()]


def outcome(product, inside, rewrites=True):
    """The output of a product in both branches of an If, or why the file is not loaded."""
    branches = {f"{name}_branch": branch(product, name, inside) for name in ("then", "else")}
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], **branches),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in SIZES.items())
    graph = helper.make_graph(nodes, "g", [x], [y], [] if inside else weights())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "0" if rewrites else "1")
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        return str(error)
    return session.run(None, {"x": np.ones((1, 48), np.float32)})[0][0]


for product in ("MatMul", "Gemm"):
    print(f"{product}, weight in the branch:", outcome(product, True))
    print(f"{product}, weight of the outer graph, without QDQ rewrites:", outcome(product, False, rewrites=False))
    print(f"{product}, weight of the outer graph:", outcome(product, False))
PY
