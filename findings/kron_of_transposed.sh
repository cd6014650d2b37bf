#!/usr/bin/env bash
# torch 2.13.0: torch.kron refuses a matrix that is transposed, or that torch.linalg.eigh gave.
#
# Behaviour: an operand that does not lie row by row fails in a view, with advice that is meant for torch itself. The same
# numbers, made contiguous, are taken.
# Output seen:
#   rows, rows: (6, 6)
#   columns, rows: RuntimeError: view size is not compatible with input tensor's size and stride
#   rows, columns: RuntimeError: view size is not compatible with input tensor's size and stride
#   contiguous, rows: (6, 6)
#   of eigh, rows: RuntimeError: view size is not compatible with input tensor's size and stride
#
# Shrinkline makes the operand contiguous where factors of convolutions are computed in the metric of their inputs
# (stages/prune/ranks/decomposition.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -W ignore - > seen.txt <<'PY'
import torch

rows, other = torch.rand(3, 3), torch.rand(2, 2)
vectors = torch.linalg.eigh(rows @ rows.mT)[1]
pairs = {
    "rows, rows": (rows, other),
    "columns, rows": (rows.mT, other),
    "rows, columns": (rows, other.mT),
    "contiguous, rows": (rows.mT.contiguous(), other),
    "of eigh, rows": (vectors, other),
}
for name, pair in pairs.items():
    try:
        print(f"{name}: {tuple(torch.kron(*pair).shape)}")
    except RuntimeError as error:
        print(f"{name}: RuntimeError: {str(error).partition(' (')[0]}")
PY
cat seen.txt
for name in "columns, rows" "rows, columns" "of eigh, rows"; do
  grep -qx "$name: RuntimeError: view size is not compatible with input tensor's size and stride" seen.txt
done
for name in "rows, rows" "contiguous, rows"; do grep -qx "$name: (6, 6)" seen.txt; done
