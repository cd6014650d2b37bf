#!/usr/bin/env bash
# MNN 3.6.1: importing its converter installs a package by pip, which replaces others in the environment.
#
# Behaviour: MNN/tools/utils/log.py runs `pip install -U aliyun-log-python-sdk` by os.system where that package does not
# import: importing MNN.tools.mnnconvert, or its command line, is enough. With it comes an older protobuf, which onnx does
# not run with. A `pip` of ours, first on the path, writes down what it is asked for.
# Output seen: "pip install -U aliyun-log-python-sdk".
#
# Shrinkline converts in an environment of MNN's own, by the wheel's `_tools` (stages/benchmark/runners/edge/mnn.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install --no-deps MNN==3.6.1 numpy==2.4.6
mkdir "$folder/first"
printf '#!/bin/sh\necho "pip $*" >>%s/asked\n' "$folder" >"$folder/first/pip"
chmod +x "$folder/first/pip"
PATH="$folder/first:$PATH" "$folder/env/bin/python" -c "import MNN.tools.mnnconvert" >"$folder/log" 2>&1 || true
seen=$(sort -u "$folder/asked")
echo "$seen"
[ "$seen" = "pip install -U aliyun-log-python-sdk" ]
