#!/usr/bin/env bash
# torch 2.13.0: FlopCounterMode, as every TorchDispatchMode, imports torch's compiler at the first operator.
#
# Behaviour: counting the FLOPs of one matrix product, eagerly, imports torch._dynamo and sympy: about as long as
# `import torch` itself. Nothing is compiled.
# Output seen: "before: [], after: ['sympy', 'torch._dynamo']".
#
# Shrinkline counts MACs without it (pipeline/measure/cost.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install torch==2.13.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

HEAVY = ("sympy", "torch._dynamo")
before = [name for name in HEAVY if name in sys.modules]
with FlopCounterMode(display=False) as counter:
    torch.rand(4, 5) @ torch.rand(5, 6)
after = [name for name in HEAVY if name in sys.modules]
print(f"before: {before}, after: {after}")
assert counter.get_total_flops() == 2 * 4 * 5 * 6
raise SystemExit(0 if not before and after == [*HEAVY] else "the behaviour has changed")
PY
