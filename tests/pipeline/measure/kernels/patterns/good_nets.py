"""Networks as people have them, small: of images, of sequences."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification

from pipeline.base.batches import Inputs
from tests.encoders import OfOneInput, OfTexts

SIZES = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
WORDS = 50


class Plain(nn.Module):
    """Convolutions with norms: (N, 1, 16, 16) -> (N, 4)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [1, width, width, 2 * width]
        layers = [
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(widths)
        ]
        self.body, self.head = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2)), nn.Linear(8 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class Residual(nn.Module):
    """A block of a ResNet behind a stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32))
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.two(self.one(x))).mean((2, 3)))


class Mobile(nn.Module):
    """Blocks of a MobileNet, which are depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU6())
        wide = [nn.Conv2d(16, 64, 1), nn.BatchNorm2d(64), nn.ReLU6()]
        deep = [nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.BatchNorm2d(64), nn.ReLU6()]
        self.block = nn.Sequential(*wide, *deep, nn.Conv2d(64, 16, 1), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.block(x)).mean((2, 3)))


class Recurrent(nn.Module):
    """An LSTM: (N, T, 32) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(32, 64, batch_first=True), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def bert() -> nn.Module:
    return OfTexts(BertForSequenceClassification(BertConfig(vocab_size=WORDS, num_labels=4, **SIZES)))


def vit() -> nn.Module:
    config = ViTConfig(image_size=16, patch_size=4, num_channels=1, num_labels=4, **SIZES)
    return OfOneInput(ViTForImageClassification(config))


def drawn(*shape: int) -> Inputs:
    return {"x": torch.rand(64, *shape, generator=torch.Generator().manual_seed(0))}


def tokens() -> Inputs:
    ids = torch.randint(0, WORDS, (64, 16), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "plain": (Plain, partial(drawn, 1, 16, 16)),
    "residual": (Residual, partial(drawn, 1, 16, 16)),
    "mobile": (Mobile, partial(drawn, 1, 16, 16)),
    "recurrent": (Recurrent, partial(drawn, 10, 32)),
    "bert": (bert, tokens),
    "vit": (vit, partial(drawn, 1, 16, 16)),
}
