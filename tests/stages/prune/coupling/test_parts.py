"""What is cut out of single layers, against what the whole layers give."""

import copy
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from stages.prune.coupling.parts import Place, remove, runs

LAYERS: dict[str, Any] = {
    "plain": nn.Conv2d(12, 8, 3),
    "in groups": nn.Conv2d(12, 8, 3, groups=4),
    "a group for each output": nn.Conv2d(12, 4, 3, groups=4),
    "two outputs of each": nn.Conv1d(4, 8, 3, groups=4, bias=False),
    "transposed": nn.ConvTranspose2d(12, 8, 3, 2),
    "transposed in groups": nn.ConvTranspose2d(12, 8, 3, 2, groups=4),
    "linear": nn.Linear(12, 8),
}


def chosen(size: int, parts: int) -> list[int]:
    """The first channels of each part, as many as leave one at least."""
    each = size // parts
    return [part * each + i for part in range(parts) for i in range(each - 1)]


ONLY = {("a group for each output", "out"), ("two outputs of each", "in")}
"""Where each group has a single channel, which stays."""


@pytest.mark.parametrize(("what", "side"), [pair for pair in product(LAYERS, ("out", "in")) if pair not in ONLY])
def test_a_layer_without_dead_channels_gives_the_same(what, side):
    torch.manual_seed(0)
    layer = copy.deepcopy(LAYERS[what]).requires_grad_(False)
    ends = ("in_features", "out_features") if what == "linear" else ("in_channels", "out_channels")
    inputs, outputs = (getattr(layer, end) for end in ends)
    x = torch.randn(2, inputs, *[5] * len(getattr(layer, "kernel_size", ())))
    gone = chosen(outputs if side == "out" else inputs, runs(layer))
    if side == "in":
        x.index_fill_(1, torch.tensor(gone), 0)
    module = nn.ModuleDict({"layer": copy.deepcopy(layer)})
    remove(module, {Place("layer", side): gone})
    rest = [i for i in range(inputs if side == "in" else outputs) if i not in gone]
    expected = layer(x)[:, rest] if side == "out" else layer(x)
    torch.testing.assert_close(module["layer"](x if side == "out" else x[:, rest]), expected)
