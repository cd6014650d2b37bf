"""A plain CNN for spectrograms of spoken digits; teacher and students differ in widths and strides alone."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

CLASSES = 10


class VoiceNet(nn.Module):
    """3x3 convolutions and a mean over time and pitch: (N, 1, bands, frames) -> logits (N, 10).

    Args:
        widths: channels after each convolution.
        strides: 1, or 2 to halve height and width, of each.
    """

    def __init__(
        self, widths: Sequence[int] = (24, 24, 48, 48, 96, 96), strides: Sequence[int] = (2, 1, 2, 1, 2, 1)
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for (before, after), stride in zip(pairwise([1, *widths]), strides, strict=True):
            convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
            parts += [convolution, nn.BatchNorm2d(after), nn.ReLU()]
        self.parts = nn.Sequential(*parts)
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of spectrograms in 0 to 1."""
        return self.head(self.parts(x).mean((2, 3)))
