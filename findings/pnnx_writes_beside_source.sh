#!/usr/bin/env bash
# pnnx 20261020: converting an ONNX file writes another ONNX file beside it, whatever names are given for the outputs.
#
# Behaviour: with all output options set to files of another folder, `pnnx model/net.onnx ...` leaves
# `net.pnnxsim.onnx` in the folder of the file that it reads. A folder that is read-only, or whose digest is kept, is
# changed by a reader.
# Output seen: "beside the source: net.onnx net.pnnxsim.onnx".
#
# Shrinkline has it read through links in a folder of its own (stages/benchmark/runtimes/ncnn.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install --no-deps pnnx==20261020
"$folder/env/bin/pip" -q install onnx==1.23.2
mkdir "$folder/model" "$folder/out"
cd "$folder"
"$folder/env/bin/python" - <<'PY'
from onnx import TensorProto, helper, save

x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "net", [x], [y])
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "model/net.onnx")
PY
options=()
for name in pnnxparam pnnxbin pnnxpy pnnxonnx ncnnparam ncnnbin ncnnpy; do options+=("$name=$folder/out/$name"); done
tool=$("$folder/env/bin/python" -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("pnnx").origin).with_name("pnnx"))')
"$tool" model/net.onnx "inputshape=[1,3,8,8]" "${options[@]}" > "$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
seen="beside the source: $(cd model && echo *)"
echo "$seen"
[ "$seen" = "beside the source: net.onnx net.pnnxsim.onnx" ] || { echo "the behaviour has changed"; exit 1; }
