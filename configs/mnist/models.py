"""A plain residual CNN for 28x28 digits; teacher and students differ in widths and depth alone."""

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


class DigitNet(nn.Module):
    """Residual CNN: (N, 1, 28, 28) -> logits (N, 10).

    Args:
        widths: channels at each resolution, from 14x14 on, each half as high and wide as the one before.
        blocks: residual blocks at each.
        places: of which the last layer reads the mean, each way.
    """

    def __init__(
        self, widths: Sequence[int] = (24, 48, 96), blocks: Sequence[int] = (1, 1, 1), places: int = 2
    ) -> None:
        super().__init__()
        kernels = [5] + [3] * (len(widths) - 1)
        parts: list[nn.Module] = []
        for (before, after), kernel, depth in zip(pairwise([1, *widths]), kernels, blocks, strict=True):
            parts += [Step(before, after, kernel), *(Block(after) for _ in range(depth))]
        self.parts = nn.Sequential(*parts)
        self.places = places
        self.head = nn.Linear(widths[-1] * places**2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of grey images in 0 to 1."""
        return self.head(nn.functional.adaptive_avg_pool2d(self.parts(x), self.places).flatten(1))
