"""Residual networks for 32x32 colour images: the published teacher, and small students."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10


class PlainShortcut(nn.Module):
    """Every second pixel each way and channels of zeros around, without parameters: option A.

    Args:
        before, after: channels.
        stride: 1 or 2.

    Reference: He, Zhang, Ren and Sun: Deep Residual Learning, 2015, arXiv:1512.03385, section 3.3.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride, self.margin = stride, (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H / stride, W / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.margin, self.margin))


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut.

    Args:
        before, after: channels.
        stride: 1 or 2, of the first convolution.
        learned: a shortcut that changes its shape is a 1x1 convolution, not a plain one.
    """

    def __init__(self, before: int, after: int, stride: int, learned: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if (before != after or stride > 1) and learned:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        elif before != after or stride > 1:
            self.shortcut = nn.Sequential(PlainShortcut(before, after, stride))

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H / stride, W / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Residual CNN: (N, 3, 32, 32) -> logits (N, 10).

    Args:
        widths: channels at 32x32, 16x16 and 8x8 pixels.
        blocks: residual blocks at each.
        learned: shortcuts between them are 1x1 convolutions, not plain ones.
    """

    def __init__(
        self, widths: Sequence[int] = (16, 32, 64), blocks: Sequence[int] = (3, 3, 3), learned: bool = True
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        stages = []
        for i, ((before, after), depth) in enumerate(zip(pairwise([widths[0], *widths]), blocks, strict=True)):
            first = Block(before, after, 2 if i else 1, learned)
            stages.append(nn.Sequential(first, *(Block(after, after, 1, learned) for _ in range(depth - 1))))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(widths[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of normalized images."""
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def resnet56() -> ResNet:
    """The network of the published weights: 853,018 parameters, plain shortcuts."""
    return ResNet(blocks=(9, 9, 9), learned=False)
