#!/usr/bin/env bash
# onnxruntime 1.31.1: GPTQ of its quantization tools rounds every weight to the nearest, whatever the calibration data are.
#
# Behaviour: `gptq` of onnxruntime.quantization.neural_compressor.weight_only, which `GPTQWeightOnlyQuantConfig` of
# `MatMulNBitsQuantizer` comes to, feeds the error of each input into the inputs that follow (Frantar et al. 2022,
# arXiv:2210.17323, algorithm 1) by a column of the upper triangle of a Cholesky factor where its row is meant
# (`Hinv1[i:, i]`, and `Hinv[i2:, i1:i2]` between blocks). Below the diagonal there are zeros, so nothing is fed forward. It
# costs the time of GPTQ and gives what `DefaultWeightOnlyQuantConfig` gives.
# Output seen: error of what the layer gives, as a share: nearest 0.00912, gptq 0.00912; by the row 0.00442
#
# Shrinkline has a GPTQ of its own (stages/quantize/blocks/methods.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6 onnx-ir ml_dtypes
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import inspect

import numpy as np
import onnxruntime
from onnxruntime.quantization.neural_compressor import weight_only

assert onnxruntime.__version__ == "1.31.1"
rng = np.random.default_rng(0)
weights = (rng.standard_t(4, size=(96, 256)) * 0.05).astype(np.float32)
inputs = rng.normal(size=(1000, 256)) @ rng.normal(size=(256, 256))
products = inputs.T @ inputs


def error(rounded):
    change = rounded - weights
    return float((change @ products * change).sum() / (weights @ products * weights).sum())


def gptq(module):
    return module["gptq"](weights.T.copy(), products * 2 / 1000, 4, 32).T


codes, scale, zero = weight_only.quant_tensor(weights, 4, 32, "asym", "uint")
nearest = error(((codes - zero) * scale).reshape(weights.shape))
theirs = error(gptq(vars(weight_only)))
source = inspect.getsource(weight_only)
mended = source.replace("Hinv1[i:, i], axis=1", "Hinv1[i, i:], axis=1").replace("Hinv[i2:, i1:i2]", "Hinv[i1:i2, i2:].T")
names = {"__name__": weight_only.__name__, "__package__": weight_only.__package__}
exec(compile(mended, "mended", "exec"), names)
by_row = error(gptq(names))
print(f"nearest {nearest:.5f}, gptq {theirs:.5f}; by the row {by_row:.5f}")
assert abs(theirs / nearest - 1) < 1e-3
assert by_row < 0.6 * theirs
PY
