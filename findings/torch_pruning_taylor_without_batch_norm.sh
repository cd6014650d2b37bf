#!/usr/bin/env bash
# torch-pruning 1.6.1: GroupTaylorImportance leaves batch normalization out, though its target types name it.
#
# Behaviour: the branch for batch normalization compares with the function that cuts group normalization, which is another
# one. Scales and their gradients add nothing to the importance; GroupMagnitudeImportance and GroupHessianImportance, which
# compare with the right one, count them.
# Output seen:
#   taylor: scales of 1 [1.0, 1.0], scales of 1 and 5 [1.0, 1.0]
#   magnitude: scales of 1 [1.0, 1.0], scales of 1 and 5 [1.0, 13.0]
#
# Shrinkline counts them (stages/prune/allocation/importance.py); the values of both are compared where there is none.
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
from torch_pruning.dependency import Dependency, Group, Node


def scores(importance, scales):
    """Of the two channels of a convolution and of the normalization behind it, whose weights and gradients are 1."""
    convolution, norm = nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2)
    group = Group()
    parts = ((convolution, tp.prune_conv_out_channels), (norm, tp.prune_batchnorm_out_channels))
    for layer, function in parts:
        nn.init.ones_(layer.weight)
        layer.weight.grad = torch.ones_like(layer.weight)
        node = Node(layer, None, "")
        group.add_dep(Dependency(function, function, node, node), [0, 1])
        group[-1].root_idxs = [0, 1]
    norm.weight.data = torch.tensor(scales)
    return importance(normalizer=None)(group).tolist()


for name, kind in (("taylor", tp.importance.GroupTaylorImportance), ("magnitude", tp.importance.GroupMagnitudeImportance)):
    print(f"{name}: scales of 1 {scores(kind, [1.0, 1.0])}, scales of 1 and 5 {scores(kind, [1.0, 5.0])}")
PY
cat seen.txt
grep -qx "taylor: scales of 1 \[1.0, 1.0\], scales of 1 and 5 \[1.0, 1.0\]" seen.txt
grep -qx "magnitude: scales of 1 \[1.0, 1.0\], scales of 1 and 5 \[1.0, 13.0\]" seen.txt
