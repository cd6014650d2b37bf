#!/usr/bin/env bash
# nncf 3.4.0: quantize_with_accuracy_control validates each example by itself where the function gives the metric alone.
#
# Behaviour: the function may give (metric, None), as in NNCF's own ONNX example, or the metric alone. Then it is called
# for each example of the validation set by itself, once with the model as it was and once with the quantized one, also
# where the first quantized model is within `max_drop` and nothing is to be ranked. A function that opens a session does so
# each time: with ResNet-56 and 2,000 images that takes eight times as long. With (metric, values of the examples) it is
# called three times.
# Output seen (calls by the number of examples in each):
#   metric alone: {1: 41, 20: 2}
#   with the values of the examples: {1: 1, 20: 2}
#
# benchmarks/peers/by_nncf.py does both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install nncf==3.4.0 onnx==1.23.2 onnxruntime==1.31.1
cd "$folder"
"$folder/env/bin/python" - <<'PY' | tee out.txt
from collections import Counter

import nncf
import numpy as np
from onnx import TensorProto, helper, numpy_helper


def network(out):
    """A convolution of `out` channels."""
    weights = np.random.default_rng(0).normal(size=(out, 3, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])
    sizes = {"x": ["n", 3, 8, 8], "y": ["n", out, 8, 8]}
    ends = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()}
    graph = helper.make_graph([node], "g", [ends["x"]], [ends["y"]], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


ROWS = [{"x": np.random.default_rng(i).random((1, 3, 8, 8), np.float32)} for i in range(20)]


def calls(values):
    """How many examples the function is called with, and how often."""
    sizes = Counter()

    def validate(model, rows):
        sizes[len(list(rows))] += 1
        return 1.0, values

    nncf.quantize_with_accuracy_control(network(8), nncf.Dataset(ROWS), nncf.Dataset(ROWS), validate)
    return dict(sorted(sizes.items()))


print("metric alone:", calls(None))
print("with the values of the examples:", calls([1.0] * len(ROWS)))
PY
grep -q '^metric alone: {1: 41, 20: 2}$' out.txt
grep -q '^with the values of the examples: {1: 1, 20: 2}$' out.txt
