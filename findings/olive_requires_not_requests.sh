#!/usr/bin/env bash
# olive-ai 0.13.0: it imports requests, and does not require it.
#
# Behaviour: installed by pip into an empty environment, `import olive` stops in its telemetry, unless something else brought
# requests.
# Output seen:
#   ModuleNotFoundError: No module named 'requests'
#
# benchmarks/peers/making.py installs it beside Olive.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install olive-ai==0.13.0 torch==2.13.0 onnx==1.23.2 onnxruntime==1.31.1
cd "$folder"
{ "$folder/env/bin/python" -c "import olive.workflows" 2>&1 || true; } | tail -1 | tee out.txt
grep -q "No module named 'requests'" out.txt
"$folder/env/bin/pip" -q install requests==2.34.2
"$folder/env/bin/python" -c "import olive.workflows"
