#!/usr/bin/env bash
# onnxruntime 1.31.1: on x86 int8 activations of a QDQ file become uint8, so they saturate like uint8 ones without VNNI.
#
# Behaviour: a convolution whose activations and weights are int8 (S8S8) is run with uint8 activations on x86: zero points
# are moved by 128 when the file is loaded. On CPUs with AVX2 or AVX-512 and without VNNI its kernels then add pairs of
# products in 16 bits, which saturate: 8 products of 255 and 127, in all 8.0, are 4.05. ONNX Runtime's page on quantization
# names that risk for uint8 activations with int8 weights (U8S8), and S8S8 as the first choice.
# Output seen: "activations: uint8; this CPU: 8.00; without VNNI: 4.05" (the last figure where qemu-x86_64-static is there,
# the middle one on a CPU with VNNI).
#
# Shrinkline's quantizing stages warn of int8 activations too, where the CPU, or `target:`, has no VNNI.
set -euo pipefail
[ "$(uname -m)" = x86_64 ] || { echo "this is about x86-64"; exit 0; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnxruntime==1.31.1 onnx==1.22.0 numpy
cat > "$folder/make.py" <<'PYTHON'
import sys
import numpy as np
from onnx import TensorProto, helper, numpy_helper, save
node, value = helper.make_node, helper.make_tensor_value_info
weights = {
    "s": np.float32(1 / 255), "z": np.int8(-128), "w": np.full((1, 8, 1, 1), 127, np.int8), "ws": np.float32(1 / 127),
    "wz": np.int8(0), "ys": np.float32(8 / 255),
}
nodes = [
    node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["d"]),
    node("DequantizeLinear", ["w", "ws", "wz"], ["v"]), node("Conv", ["d", "v"], ["c"]),
    node("QuantizeLinear", ["c", "ys", "z"], ["p"]), node("DequantizeLinear", ["p", "ys", "z"], ["y"]),
]
ends = [value("x", TensorProto.FLOAT, [1, 8, 2, 2])], [value("y", TensorProto.FLOAT, [1, 1, 2, 2])]
graph = helper.make_graph(nodes, "g", *ends, [numpy_helper.from_array(v, k) for k, v in weights.items()])
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), sys.argv[1])
PYTHON
cat > "$folder/run.py" <<'PYTHON'
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
if len(sys.argv) > 2:
    options.optimized_model_filepath = sys.argv[2]
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(f"{session.run(None, {'x': np.ones((1, 8, 2, 2), np.float32)})[0].max():.2f}")
PYTHON
cat > "$folder/kind.py" <<'PYTHON'
import sys
from onnx import helper, load
graph = load(sys.argv[1]).graph
(product,) = (node for node in graph.node if node.op_type == "QLinearConv")
kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
print(helper.tensor_dtype_to_np_dtype(kinds[product.input[2]]))
PYTHON
python="$folder/env/bin/python"
"$python" "$folder/make.py" "$folder/net.onnx"
here=$("$python" "$folder/run.py" "$folder/net.onnx" "$folder/optimized.onnx")
kind=$("$python" "$folder/kind.py" "$folder/optimized.onnx")
there=4.05
if command -v qemu-x86_64-static > /dev/null; then
    there=$(qemu-x86_64-static -cpu Haswell "$python" "$folder/run.py" "$folder/net.onnx" 2> /dev/null)
fi
if [ "$kind" = uint8 ] && [ "$there" = 4.05 ]; then
    echo "activations: $kind; this CPU: $here; without VNNI: $there"
else
    echo "the behaviour has changed: activations are $kind, without VNNI the sum is $there"
    exit 1
fi
