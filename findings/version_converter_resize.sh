#!/usr/bin/env bash
# onnx 1.23.2: version_converter turns Resize of opset 10 into one that computes something else.
#
# Behaviour: Resize of opset 10 finds its pixels at x / scale. Opset 11 calls that "asymmetric" and has another default,
# "half_pixel"; converted from 10 to 11 or later the node gets no attribute, and so the new default: other values, without
# a warning. Setting coordinate_transformation_mode="asymmetric" on the converted node makes the outputs equal.
# Output seen: "converted: 0.75, asymmetric: 0.00" (the largest difference from the file of opset 10 in onnxruntime).
#
# Shrinkline sets the old mode after raising a file (stages/quantize/graphs/versions.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnx==1.23.2 onnxruntime==1.31.1 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, version_converter

onnxruntime.set_default_logger_severity(4)
ends = [
    [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
    for name, shape in (("x", [1, 1, 2, 2]), ("y", [1, 1, 4, 4]))
]
scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "s")
graph = helper.make_graph([helper.make_node("Resize", ["x", "s"], ["y"], mode="linear")], "g", *ends, [scales])
old = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=5)
onnx.checker.check_model(old)
image = np.array([[[[0, 1], [2, 3]]]], np.float32)


def run(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": image})[0]


def difference(model):
    return float(np.abs(run(model) - run(old)).max())


new = version_converter.convert_version(old, 13)
converted = difference(new)
(node,) = (node for node in new.graph.node if node.op_type == "Resize")
node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
mended = difference(new)
print(f"converted: {converted:.2f}, asymmetric: {mended:.2f}")
raise SystemExit(0 if converted > 0.1 and mended < 1e-6 else "the behaviour has changed")
PY
