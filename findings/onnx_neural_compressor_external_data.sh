#!/usr/bin/env bash
# onnx-neural-compressor 1.0: a small network comes out as two files, though `use_external_data_format` is false.
#
# Behaviour: the network is first optimized into a file with external data of 1,024 bytes and more, and what is written last
# keeps such weights outside too, in NAME.onnx_data, which only its owner may read. The .onnx file alone, which is all that
# was named, does not load.
# Output seen (bytes):
#   net.onnx 13,961, q.onnx 1,489, q.onnx_data 3,456
#
# benchmarks/compress.py counts both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnx-neural-compressor==1.0 prettytable==3.18.0 scipy==1.17.1 numpy==1.26.4 \
    onnx==1.23.2 onnxruntime==1.31.1
cd "$folder"
"$folder/env/bin/python" - <<'PY' | tee out.txt
from pathlib import Path

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


onnx.save(network(128), "net.onnx")
settings = config.StaticQuantConfig(calibration_data_reader=Reader(), per_channel=True, calibration_sampling_size=4)
quantize("net.onnx", "q.onnx", settings)
print(", ".join(f"{path.name} {path.stat().st_size:,}" for path in sorted(Path().glob("*.onnx*"))))
PY
grep -q '^net.onnx 13,961, q.onnx 1,489, q.onnx_data 3,456$' out.txt
