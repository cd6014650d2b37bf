"""Four small networks, and the tasks that they learn, as a pipeline file names them: see tests/chains.py."""

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification

from pipeline.task import Split, Task, classification

WORDS, LENGTH, CLASSES = 200, 12, 4
TRAIN, OTHER = 192, 64


class Cnn(nn.Module):
    """A stem, two residual blocks and a separable one: (N, 1, 8, 8) -> (N, 4)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = _normed(nn.Conv2d(1, width, 3, padding=1))
        self.blocks = nn.ModuleList(_normed(nn.Conv2d(width, width, 3, padding=1)) for _ in range(2))
        self.depthwise = _normed(nn.Conv2d(width, width, 3, padding=1, groups=width))
        self.pointwise = _normed(nn.Conv2d(width, 2 * width, 1))
        self.head = nn.Linear(2 * width * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = torch.relu(x + block(x))
        x = torch.relu(self.pointwise(torch.relu(self.depthwise(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def _normed(layer: nn.Conv2d) -> nn.Module:
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels))


class Lstm(nn.Module):
    """The last state over embedded tokens: (N, 12) -> (N, 4)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.table(x))[0].mean(1))


class Logits(nn.Module):
    """Those of a transformer of one input."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def _sizes(width: int) -> dict[str, int]:
    return {"hidden_size": width, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 2 * width}


def bert(width: int = 64) -> nn.Module:
    """(N, 12) tokens -> (N, 4)."""
    config = BertConfig(vocab_size=WORDS, max_position_embeddings=16, num_labels=CLASSES, **_sizes(width))
    return Logits(BertForSequenceClassification(config))


def vit(width: int = 64) -> nn.Module:
    """(N, 1, 8, 8) -> (N, 4)."""
    config = ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=CLASSES, **_sizes(width))
    return Logits(ViTForImageClassification(config))


def images() -> Task:
    """Noise with a brighter quadrant, which is the class."""
    return classification(*(Split(_images(count, seed)) for seed, count in enumerate((TRAIN, OTHER, OTHER))))


def _images(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    pixels = torch.rand(count, 1, 8, 8, generator=generator)
    for image, label in zip(pixels, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += 1
    return TensorDataset(pixels, labels)


def texts() -> Task:
    """Random tokens, half of them of the quarter of the vocabulary that is the class."""
    return classification(*(Split(_texts(count, seed)) for seed, count in enumerate((TRAIN, OTHER, OTHER))))


def _texts(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    tokens = torch.randint(0, WORDS, (count, LENGTH), generator=generator)
    own = labels[:, None] * (WORDS // CLASSES) + torch.randint(
        0, WORDS // CLASSES, (count, LENGTH), generator=generator
    )
    return TensorDataset(torch.where(torch.rand(count, LENGTH, generator=generator) < 0.6, own, tokens), labels)
