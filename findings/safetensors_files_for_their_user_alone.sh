#!/usr/bin/env bash
# safetensors 0.8.0: save_file gives its file the mode 0600, whatever the umask lets others read.
#
# Behaviour: the file is made as a temporary one and renamed, and keeps that one's mode. In a folder that several users
# share, the others cannot read weights that are written into it, while every other file beside them can be read.
# Output seen: "umask 022, mode 0o600" (0o644 is what open() gives)
#
# Shrinkline gives the files of a result the modes of the umask when it is whole (pipeline/base/files.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install safetensors==0.8.0 numpy==2.4.6
cd "$folder"
umask 022
"$folder/env/bin/python" - <<'PY'
import os

import numpy as np
from safetensors.numpy import save_file

save_file({"x": np.zeros(3)}, "weights.safetensors")
mode = os.stat("weights.safetensors").st_mode & 0o777
print(f"umask 022, mode {mode:#o}")
raise SystemExit(0 if mode == 0o600 else "the behaviour has changed")
PY
