#!/usr/bin/env bash
# torch 2.13.0: fuse_conv_bn_weights(..., transpose=True) does not know groups: a grouped transposed convolution is broken.
#
# Behaviour: the weight of a ConvTranspose has the shape (in, out / groups, ...), and the function multiplies it by a
# factor for each of `out` channels along the second axis. With groups == out, as in depthwise layers, that axis is
# broadcast: the weight comes back as (in, out, ...) without a word, and the layer that fuse_conv_bn_eval gives does not
# run. With fewer groups the shapes do not fit and it raises.
# Output seen:
#   groups 1: (4, 4, 2, 2) -> (4, 4, 2, 2), largest difference 1e-07
#   groups 2: is not fused: The size of tensor a (2) must match the size of tensor b (4) at non-singleton dimension 1
#   groups 4: (4, 1, 2, 2) -> (4, 4, 2, 2), does not run: Given transposed=1, weight of size [4, 4, 2, 2], expected bias to
#     be 1-dimensional with 16 elements, but got bias of size [4] instead
#
# Shrinkline folds no norm into a transposed convolution of groups (stages/quantize/training/folding.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install torch==2.13.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PY'
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

torch.manual_seed(0)


def outcome(groups):
    """What becomes of the weight and the output of a transposed convolution and its batch norm."""
    conv, norm = nn.ConvTranspose2d(4, 4, 2, stride=2, groups=groups).eval(), nn.BatchNorm2d(4).eval()
    norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.5, 2)
    inputs = torch.randn(1, 4, 3, 3)
    with torch.no_grad():
        try:
            fused = fuse_conv_bn_eval(conv, norm, transpose=True)
        except RuntimeError as error:
            return f"is not fused: {error}"
        weights = f"{tuple(conv.weight.shape)} -> {tuple(fused.weight.shape)}"
        try:
            difference = norm(conv(inputs)) - fused(inputs)
        except RuntimeError as error:
            return f"{weights}, does not run: {error}"
    return f"{weights}, largest difference {float(difference.abs().max()):.0e}"


for groups in (1, 2, 4):
    print(f"groups {groups}: {outcome(groups)}")
PY
