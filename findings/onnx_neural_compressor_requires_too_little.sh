#!/usr/bin/env bash
# onnx-neural-compressor 1.0: it imports prettytable and scipy, and requires neither.
#
# Behaviour: installed by pip into an empty environment, `import onnx_neural_compressor.quantization` stops at the one and
# then at the other.
# Output seen:
#   ModuleNotFoundError: No module named 'prettytable'
#   ModuleNotFoundError: No module named 'scipy'
#
# benchmarks/peers/making.py installs both beside it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnx-neural-compressor==1.0 onnx==1.23.2 onnxruntime==1.31.1
cd "$folder"
for package in prettytable scipy; do
    { "$folder/env/bin/python" -c "import onnx_neural_compressor.quantization" 2>&1 || true; } | tail -1 | tee out.txt
    grep -q "No module named '$package'" out.txt
    "$folder/env/bin/pip" -q install $package
done
"$folder/env/bin/python" -c "import onnx_neural_compressor.quantization"
