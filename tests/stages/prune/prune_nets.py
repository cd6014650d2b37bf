"""Small networks of every kind that pruning meets, and a context with data that can be learnt."""

from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.model import TorchModel
from pipeline.task import Split, classification
from tests.contexts import context_of, quadrants

HERE = Path(__file__).parent
DIGITS = HERE.parents[2] / "configs" / "digits"


class PlainNet(nn.Module):
    """conv 1->a, conv a->b on 8x8, pooled to 2x2, linear 4b->classes."""

    def __init__(self, a: int = 16, b: int = 32) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, a, 3, padding=1)
        self.two = nn.Conv2d(a, b, 3, padding=1)
        self.head = nn.Linear(4 * b, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.two(torch.relu(self.one(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


class MobileNet(nn.Module):
    """An inverted residual: pointwise, depthwise, pointwise; then a grouped convolution with group normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.expand = nn.Conv2d(16, 48, 1)
        self.depthwise = nn.Conv2d(48, 48, 3, padding=1, groups=48)
        self.norm = nn.BatchNorm2d(48)
        self.project = nn.Conv2d(48, 16, 1)
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.groupnorm = nn.GroupNorm(4, 32)
        self.head = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.project(torch.relu(self.norm(self.depthwise(self.expand(x)))))
        return self.head(torch.relu(self.groupnorm(self.grouped(x)))).mean((2, 3))


class NormalizedHead(nn.Module):
    """A convolution and a head that begins with a normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3)
        self.head = nn.Sequential(
            nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x))


class Encoder(nn.Module):
    """nn.TransformerEncoder over the rows of the image."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        layer = nn.TransformerEncoderLayer(32, 4, dim_feedforward=64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x.squeeze(1))).mean(1))


class TwoInputs(nn.Module):
    """Named inputs, one of them unused by gradients, and two named outputs, one of which is in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(10, 16)
        self.image = nn.Linear(64, 16)
        self.features = nn.Linear(32, 24)
        self.hidden = nn.Linear(24, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, image: Tensor, token: Tensor) -> dict[str, Tensor]:
        both = torch.cat([torch.relu(self.image(image.flatten(1))), self.tokens(token)], 1)
        features = torch.relu(self.features(both))
        return {"logits": self.head(torch.relu(self.hidden(features))), "features": features}


class Tied(nn.Module):
    """A language model whose last layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 32)
        self.up = nn.Linear(32, 48)
        self.down = nn.Linear(48, 32)
        self.head = nn.Linear(32, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        return self.head(x + self.down(torch.relu(self.up(x))))


class FixedView(nn.Module):
    """Attention by hand, with the number and the size of the heads written into the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 32)
        self.up = nn.Linear(32, 64)
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.qkv(x.squeeze(1)).view(-1, 8, 4, 8).mean(1).flatten(1)
        return self.head(torch.relu(self.up(x)))


class Tokens(nn.Module):
    """Rows of the image behind a token of its own, with positions, as in a ViT without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(8, 16), nn.LayerNorm(16)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 9, 16))
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x.squeeze(1))], 1) + self.positions
        return self.head((x + self.down(torch.relu(self.up(self.norm(x)))))[:, 0])


class Recurrent(nn.Module):
    """A convolution with a gain and an offset of its own before a GRU over the rows of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gain = nn.Conv1d(8, 16, 3, padding=1), nn.Parameter(torch.randn(16, 1))
        self.register_buffer("offset", torch.randn(16, 1))
        self.gru, self.head = nn.GRU(16, 8, batch_first=True, bidirectional=True), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x.squeeze(1))) * self.gain + self.offset
        return self.head(self.gru(x.mT)[0].mean(1))


class Stacked(nn.Module):
    """A layer before an LSTM or another one of two layers in both directions, and a head on its mean over the rows."""

    def __init__(self, kind: str = "LSTM") -> None:
        super().__init__()
        self.before = nn.Linear(8, 16)
        self.rnn = getattr(nn, kind)(16, 24, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(torch.relu(self.before(x.squeeze(1))))[0].mean(1))


class Flat(nn.Module):
    """A head that reads the channels of 8x8 pixels, the channels first or last."""

    def __init__(self, last: bool = False) -> None:
        super().__init__()
        self.last, self.conv, self.head = last, nn.Conv2d(1, 16, 3, padding=1), nn.Linear(16 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return self.head((x.permute(0, 2, 3, 1) if self.last else x).flatten(1))


class Auxiliary(nn.Module):
    """A second head that adds to the first in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head, self.aux = nn.Conv2d(1, 16, 3, padding=1), nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).amax((2, 3))
        return self.head(x) + self.aux(x) if self.training else self.head(x)


class Normalized(PlainNet):
    """Convolutions whose weights are computed at each call."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        normalize = attrgetter(kind)(nn.utils)
        self.one, self.two = normalize(self.one), normalize(self.two)


def images(count: int, seed: int) -> Split:
    return Split(quadrants(count, seed, brighter=0.3))  # type: ignore[arg-type]


def built(use: str, example: Inputs | None = None, folder: Path = HERE, **arguments: object) -> TorchModel:
    """A model with random weights and running statistics that are not the identity."""
    torch.manual_seed(0)
    example = example or {"input": torch.rand(2, 1, 8, 8)}
    model = TorchModel.build(Reference(use=use, arguments=arguments, folder=folder), example)
    for module in model.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def silence(layer: nn.Module, channels: list[int]) -> None:
    """Let these outputs of a layer be 0 whatever comes in."""
    with torch.no_grad():
        if getattr(layer, "transposed", False):
            each = layer.weight.shape[1]
            for channel in channels:
                layer.weight.unflatten(0, (layer.groups, -1))[channel // each, :, channel % each] = 0
        else:
            layer.weight[channels] = 0
        layer.bias[channels] = 0


def context(directory: Path, reports: dict, **changes: Any) -> Context:
    """A context on the CPU; what is reported lands in `reports`."""
    task = classification(images(512, 0), images(256, 2), images(2, 3), calibration=images(64, 1))
    return context_of(task, directory, report=reports.__setitem__, **changes)
