#!/usr/bin/env bash
# onnx-neural-compressor 1.0: a misspelt setting passes in silence, and the file is another than was asked for.
#
# Behaviour: `StaticQuantConfig(per_chanel=True)` is no error and no warning. Its default of `per_channel` is false, so that
# the weights have one scale in place of one a channel.
# Output seen (the sizes of the weights' scale):
#   per_channel: [32]
#   per_chanel: []
#
# benchmarks/peers/by_onnx_neural_compressor.py spells it right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnx-neural-compressor==1.0 prettytable==3.18.0 scipy==1.17.1 numpy==1.26.4 \
    onnx==1.23.2 onnxruntime==1.31.1
cd "$folder"
"$folder/env/bin/python" - <<'PY' 2>&1 | tee out.txt
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import config, quantize


def network(out):
    """A convolution of `out` channels."""
    weights = np.random.default_rng(0).normal(size=(out, 3, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])
    sizes = {"x": ["n", 3, 8, 8], "y": ["n", out, 8, 8]}
    ends = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()}
    graph = helper.make_graph([node], "g", [ends["x"]], [ends["y"]], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Reader(data_reader.CalibrationDataReader):
    """A batch of four images."""

    def __init__(self):
        self.rewind()

    def get_next(self):
        return next(self.batches, None)

    def rewind(self):
        self.batches = iter([{"x": np.random.default_rng(0).random((4, 3, 8, 8), np.float32)}])


onnx.save(network(32), "net.onnx")
for name in ("per_channel", "per_chanel"):
    settings = config.StaticQuantConfig(calibration_data_reader=Reader(), calibration_sampling_size=4, **{name: True})
    quantize("net.onnx", f"{name}.onnx", settings)
    (scale,) = [value for value in onnx.load(f"{name}.onnx").graph.initializer if value.name == "w_scale"]
    print(f"{name}: {list(scale.dims)}")
PY
grep -q '^per_channel: \[32\]$' out.txt
grep -q '^per_chanel: \[\]$' out.txt
! grep -v '^per_chan' out.txt | grep -q per_chanel
