#!/usr/bin/env bash
# torch 2.13.0: fused attention on the CPU gives zeros where queries or keys are NaN, when there are few keys.
#
# Behaviour: scaled_dot_product_attention, which takes the fused kernel by itself, gives zeros for queries that are NaN
# where there are fewer keys than a vector register holds floats (16 with AVX-512, 8 with AVX2), and so for keys that are
# all NaN. With 64 keys it gives NaN, as the math path does with any number. So a network that has become NaN can
# answer with numbers. Reported of torch 2.5 in https://github.com/pytorch/pytorch/issues/141128, which is closed.
# Output seen, the share of the outputs that is NaN:
#   4 keys, NaN query: default 0.0, math 1.0
#   4 keys, NaN key: default 0.0, math 1.0
#   64 keys, NaN query: default 1.0, math 1.0
#   64 keys, NaN key: default 1.0, math 1.0
#
# Shrinkline marks channels with NaN to see where they arrive, with the math path (stages/prune/coupling/flow.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - > seen.txt <<'PY'
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

for keys in (4, 64):
    for name in ("query", "key"):
        inputs = {part: torch.ones(1, 1, keys, 8) for part in ("query", "key", "value")}
        inputs[name].fill_(torch.nan)
        default = scaled_dot_product_attention(**inputs)
        with sdpa_kernel(SDPBackend.MATH):
            by_math = scaled_dot_product_attention(**inputs)
        shares = [output.isnan().float().mean().item() for output in (default, by_math)]
        print(f"{keys} keys, NaN {name}: default {shares[0]}, math {shares[1]}")
PY
cat seen.txt
diff seen.txt - <<'END'
4 keys, NaN query: default 0.0, math 1.0
4 keys, NaN key: default 0.0, math 1.0
64 keys, NaN query: default 1.0, math 1.0
64 keys, NaN key: default 1.0, math 1.0
END
