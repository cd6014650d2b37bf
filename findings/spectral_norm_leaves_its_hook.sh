#!/usr/bin/env bash
# torch 2.13.0: after remove_spectral_norm a layer does not load its own state dict.
#
# Behaviour: torch.nn.utils.spectral_norm registers hooks before the forward, for state_dict and for load_state_dict.
# remove_spectral_norm takes the first two away. The one for loading stays and looks for weight_orig and weight_u, which
# are gone. remove_weight_norm leaves nothing behind.
# Output seen:
#   spectral_norm: keys bias, weight; hooks left 1; Missing key(s) in state_dict: "weight_orig", "weight_u".
#   weight_norm: keys bias, weight; hooks left 0; loads
#
# Shrinkline takes the hook away itself where it makes such weights plain (stages/prune/computed.py), for a pruned model
# is saved, rebuilt and loaded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" -W ignore - > seen.txt <<'PY'
from torch import nn
from torch.nn.utils import remove_spectral_norm, remove_weight_norm, spectral_norm, weight_norm


def outcome(layer):
    """Its keys, the hooks that are left, and whether it takes its own state dict."""
    try:
        layer.load_state_dict(layer.state_dict())
        loads = "loads"
    except RuntimeError as error:
        loads = str(error).splitlines()[1].strip()
    return f"keys {', '.join(sorted(layer.state_dict()))}; hooks left {len(layer._load_state_dict_pre_hooks)}; {loads}"


for add, remove in ((spectral_norm, remove_spectral_norm), (weight_norm, remove_weight_norm)):
    print(f"{add.__name__}: {outcome(remove(add(nn.Linear(2, 3))))}")
PY
cat seen.txt
grep -qx 'spectral_norm: keys bias, weight; hooks left 1; Missing key(s) in state_dict: "weight_orig", "weight_u".' seen.txt
grep -qx "weight_norm: keys bias, weight; hooks left 0; loads" seen.txt
