"""Networks with every kind of layer that single zeros come into, and some that they do not come into."""

from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).parent


class Standardized(nn.Conv2d):
    """A convolution whose weight is standardized at each call, so that zeros of it are none in what is computed."""

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return nn.functional.conv2d(x, weight, self.bias, padding=1)


class Padded(nn.Conv2d):
    """A convolution with a forward of its own that reads the weight as it is."""

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv2d(nn.functional.pad(x, (1, 1, 1, 1)), self.weight)
        return x + self.bias[:, None, None]


class Odd(nn.Module):
    """A standardized and a padded convolution, an embedding, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.standardized, self.padded = Standardized(8, 8, 3), Padded(8, 8, 3)
        self.table, self.unused = nn.Parameter(torch.rand(8, 1)), nn.Linear(8, 12)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.padded(torch.relu(self.standardized(torch.relu(self.stem(x)))))
        return self.head((x.flatten(2) * self.table).mean(2))


class Twice(nn.Module):
    """Two layers that share a weight and read other values; the head is defined first."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.embed = nn.Linear(16, 4), nn.Linear(8, 16)
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 16)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(torch.relu(self.embed(x.squeeze(1)))))
        return self.head(torch.relu(self.two(3 * x - 1)).mean(1))


class Wide(nn.Module):
    """Convolutions and linear layers with many inputs, as files whose weights are most of them."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1, stride=2)
        self.three = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.two(torch.relu(self.stem(x))))
        return self.head(torch.relu(self.three(x)).mean((2, 3)))
