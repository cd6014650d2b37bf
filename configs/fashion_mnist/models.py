"""Residual CNNs for 28x28 clothes: of plain convolutions, and of separable ones that need fewer weights."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

CLASSES = 10


class Step(nn.Module):
    """A convolution that halves height and width."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H / 2, W / 2), rounded up."""
        return torch.relu(self.norm(self.conv(x)))


def _quarters(x: Tensor) -> Tensor:
    """The means of four parts of an image, which meet in the middle: (N, C, H, H) -> (N, 4 C).

    As adaptive pooling to 2x2 has them, in one operator of an ONNX file instead of tables of a kilobyte.
    """
    side = x.shape[-1]
    return nn.functional.avg_pool2d(x, side - side // 2, side // 2).flatten(1)


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, H, W) -> the same shape."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


class FashionNet(nn.Module):
    """Residual CNN: (N, 1, 28, 28) -> logits (N, 10).

    Args:
        widths: channels at each resolution, from 14x14 on, each half as high and wide as the one before.
        blocks: residual blocks at each.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 192), blocks: Sequence[int] = (1, 1, 1)) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for stage, ((before, after), depth) in enumerate(zip(pairwise([1, *widths]), blocks, strict=True)):
            parts += [Step(before, after, 3 if stage else 5), *(Block(after) for _ in range(depth))]
        self.parts = nn.Sequential(*parts)
        self.head = nn.Linear(widths[-1] * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of grey images in 0 to 1."""
        return self.head(_quarters(self.parts(x)))


class Separable(nn.Module):
    """A 3x3 convolution of each channel and a 1x1 one over all, around a shortcut where the shape stays.

    Reference: Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017,
        arXiv:1704.04861, figure 3.
    """

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.deep = nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False)
        self.norm1 = nn.BatchNorm2d(before)
        self.point = nn.Conv2d(before, after, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.around = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """(N, before, H, W) -> (N, after, H / stride, W / stride), rounded up."""
        y = self.norm2(self.point(torch.relu(self.norm1(self.deep(x)))))
        return torch.relu(x + y if self.around else y)


class SeparableNet(nn.Module):
    """Residual CNN of separable convolutions: (N, 1, 28, 28) -> logits (N, 10).

    Args:
        widths: channels of the first convolution, then at each resolution, from 14x14 on.
        blocks: residual blocks at each resolution.
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 56), blocks: Sequence[int] = (3, 2)) -> None:
        super().__init__()
        parts: list[nn.Module] = [Step(1, widths[0], 5)]
        for stage, ((before, after), depth) in enumerate(zip(pairwise(widths), blocks, strict=True)):
            parts += [Separable(before, after, 2 if stage else 1), *(Separable(after, after) for _ in range(depth))]
        self.parts = nn.Sequential(*parts)
        self.head = nn.Linear(widths[-1] * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of grey images in 0 to 1."""
        return self.head(_quarters(self.parts(x)))
