#!/usr/bin/env bash
# torch-pruning 1.6.1: GroupHessianImportance keeps the squared gradients of the last example alone.
#
# Behaviour: accumulate_grad is to be called for each example. It looks for a parameter's name among keys that are the
# parameters themselves, never finds it, and so begins anew at each call; the count stays 1. The importance depends on
# the order of the examples.
# Output seen:
#   after one example [1.0, 0.0]; after another one [0.0, 4.0]; the mean of both [0.5, 2.0]
#
# Shrinkline sums squared gradients itself (stages/prune/allocation/signals.py), for `importance: hessian`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install torch==2.13.0 numpy==2.4.6 torch-pruning==1.6.1
cd "$folder"
"$folder/env/bin/python" -W ignore - > seen.txt <<'PY'
import torch
import torch_pruning as tp
from torch import nn

layer = nn.Linear(2, 1, bias=False)
importance = tp.importance.GroupHessianImportance()
seen = []
for example in ([1.0, 0.0], [0.0, 2.0]):
    layer.zero_grad()
    layer(torch.tensor(example)).sum().backward()
    importance.accumulate_grad(layer)
    (total,), (count,) = importance._accu_grad.values(), importance._counter.values()
    seen.append((total / count).flatten().tolist())
mean = [(1.0**2 + 0) / 2, (0 + 2.0**2) / 2]
print(f"after one example {seen[0]}; after another one {seen[1]}; the mean of both {mean}")
PY
cat seen.txt
grep -qx "after one example \[1.0, 0.0\]; after another one \[0.0, 4.0\]; the mean of both \[0.5, 2.0\]" seen.txt
