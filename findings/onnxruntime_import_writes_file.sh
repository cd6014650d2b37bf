#!/usr/bin/env bash
# onnxruntime 1.31.1: importing it writes a file with a time and a random identifier into the folder for temporary files.
#
# Behaviour: `import onnxruntime`, without any session, creates `.ses` in $TMPDIR: milliseconds since 1970 in one line and
# a UUID in the next. It stays when the process ends, so a check that a process leaves its folder as it was fails.
# Output seen: ".ses: a number of 13 digits, a UUID".
#
# Shrinkline gives a device's processes the folder that it removes after them as TMPDIR (stages/benchmark/runners/hosts).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install onnxruntime==1.31.1
mkdir "$folder/scratch"
TMPDIR="$folder/scratch" "$folder/env/bin/python" -c 'import onnxruntime'
cd "$folder/scratch"
files=$(find . -mindepth 1)
first=$(sed -n 1p .ses 2>/dev/null || true)
second=$(sed -n 2p .ses 2>/dev/null || true)
if [ "$files" = "./.ses" ] && [[ $first =~ ^[0-9]{13}$ ]] && [[ $second =~ ^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$ ]]; then
    echo ".ses: a number of 13 digits, a UUID"
else
    echo "the behaviour has changed: $files"
    exit 1
fi
