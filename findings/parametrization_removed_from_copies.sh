#!/usr/bin/env bash
# torch 2.13.0: remove_parametrizations on a copy of a layer takes the weight from the layer that was copied.
#
# Behaviour: register_parametrization gives a layer a class of its own, whose property computes the weight.
# copy.deepcopy keeps that class, so the layer and its copy share it. remove_parametrizations deletes the property from
# the class: the copy has a plain weight after it, and every other layer of the class has none.
# Output seen:
#   before: the layer [3, 2, 1, 1], its copy [3, 2, 1, 1]
#   after: the layer 'ParametrizedConv2d' object has no attribute 'weight', its copy [3, 2, 1, 1]
#   of two layers that are no copies the other keeps its weight: True
#
# Shrinkline makes weights plain without touching the class (stages/prune/computed.py), since a stage never changes the
# model that it was given.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - > seen.txt <<'PY'
from copy import deepcopy

from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations


def weight(layer):
    """The shape of its weight, or why there is none."""
    try:
        return [*layer.weight.shape]
    except AttributeError as error:
        return error


layer, other = weight_norm(nn.Conv2d(2, 3, 1)), weight_norm(nn.Conv2d(2, 3, 1))
copied = deepcopy(layer)
print(f"before: the layer {weight(layer)}, its copy {weight(copied)}")
remove_parametrizations(copied, "weight")
print(f"after: the layer {weight(layer)}, its copy {weight(copied)}")
print(f"of two layers that are no copies the other keeps its weight: {isinstance(weight(other), list)}")
PY
cat seen.txt
grep -qx "after: the layer 'ParametrizedConv2d' object has no attribute 'weight', its copy \[3, 2, 1, 1\]" seen.txt
grep -qx "of two layers that are no copies the other keeps its weight: True" seen.txt
