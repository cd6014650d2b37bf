#!/usr/bin/env bash
# onnxruntime 1.31.1: k-quant and GPTQ of its quantization tools lose a block of weights that have one sign.
#
# Behaviour: `quant_tensor_k_quant_cpu` and `quant_tensor` take the scale of a block from its least to its largest weight,
# without 0 between them, and then cut the zero point at 0 or 2^bits - 1. A block of 32 weights from 5 to 6 gets the scale
# 1/15, the zero point 0 and 15 as every code: each weight decodes to 1. `DefaultWeightOnlyQuantConfig` keeps 0 in the
# range and is within half a step. MatMulNBitsQuantizer with KQuantWeightOnlyQuantConfig gives such a file without a word.
# Output seen: a MatMul of ones with 32 weights of about 5.5, 176.0 in fp32: default 176.8, k-quant 31.0
#
# Shrinkline keeps 0 in the range of every block (stages/quantize/blocks/methods.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6 onnx-ir ml_dtypes
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import matmul_nbits_quantizer as tool

assert onnxruntime.__version__ == "1.31.1"
logging.disable()
weight = numpy_helper.from_array(np.linspace(5, 6, 32, dtype=np.float32)[:, None], "w")
ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, n])] for name, n in (("x", 32), ("y", 1))]
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], "product")], "g", *ends, [weight])


def answer(config):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    if config:
        quantizer = tool.MatMulNBitsQuantizer(model, algo_config=config)
        if config.algorithm == "k_quant":  # its block of 32, which it does not take from its configuration
            quantizer.block_size = 32
        quantizer.process()
        model = quantizer.model.model
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": np.ones((1, 32), np.float32)})[0].item())


fp32 = answer(None)
default = answer(tool.DefaultWeightOnlyQuantConfig(block_size=32))
k_quant = answer(tool.KQuantWeightOnlyQuantConfig())
print(f"fp32 {fp32:.1f}, default {default:.1f}, k-quant {k_quant:.1f}")
assert abs(default - fp32) < 4
assert k_quant < 40
PY
