"""The network that benchmarks/latency.py times: convolutions that take a core a few milliseconds."""

from itertools import pairwise

from torch import nn


def network(width: int = 64, layers: int = 5) -> nn.Module:
    """Ten classes of images of 32 x 32."""
    widths = [3, *[width] * layers]
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU()) for a, b in pairwise(widths)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
