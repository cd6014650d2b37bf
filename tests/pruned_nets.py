"""Small networks of eighteen architectures, each for images (N, 1, 8, 8) or tokens (N, 12), to four classes."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2Model,
    SwinConfig,
    SwinForImageClassification,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTForImageClassification,
)

from tests.chain_nets import CLASSES, LENGTH, WORDS, Cnn, Logits
from tests.stages.prune.transformer_nets import Encoder, Hand

WIDTH = 32


class UNet(nn.Module):
    """Two levels, a transposed convolution up, and what the first level gave beside what comes up."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, WIDTH, 3, stride=2, padding=1)
        self.up, self.join = nn.ConvTranspose2d(WIDTH, 16, 2, stride=2), nn.Conv2d(32, 16, 3, padding=1)
        self.head = nn.Linear(16 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.down(x))
        x = torch.cat([first, torch.relu(self.up(torch.relu(self.deep(first))))], 1)
        return self.head(nn.functional.adaptive_avg_pool2d(torch.relu(self.join(x)), 2).flatten(1))


class DenseNet(nn.Module):
    """Each layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16 + 8 * i) for i in range(3))
        self.layers = nn.ModuleList(nn.Conv2d(16 + 8 * i, 8, 3, padding=1) for i in range(3))
        self.head = nn.Linear(40 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = torch.cat([x, layer(torch.relu(norm(x)))], 1)
        return self.head(nn.functional.adaptive_avg_pool2d(torch.relu(x), 2).flatten(1))


class _ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(width, width, 7, padding=3, groups=width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(nn.functional.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Patches, and blocks of a depthwise convolution, a norm and two linear layers with a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, WIDTH, 2, stride=2)
        self.blocks = nn.Sequential(_ConvNeXtBlock(WIDTH), _ConvNeXtBlock(WIDTH))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x)).mean((2, 3))))


class Recurrent(nn.Module):
    """An LSTM or GRU over embedded tokens, and two linear layers on its last state."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.table, self.rnn = nn.Embedding(WORDS, WIDTH), getattr(nn, kind)(WIDTH, WIDTH, batch_first=True)
        self.hidden, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.rnn(self.table(x))[0][:, -1])))


class _TcnBlock(nn.Module):
    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.one, self.two = (
            weight_norm(nn.Conv1d(WIDTH, WIDTH, 3, padding=dilation, dilation=dilation)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + torch.relu(self.two(torch.relu(self.one(x)))))


class Tcn(nn.Module):
    """Dilated convolutions with weight normalization over the rows of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(8, WIDTH, 1)
        self.blocks, self.head = nn.Sequential(*map(_TcnBlock, (1, 2))), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x.squeeze(1))).mean(2))


class _MixerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.tokens = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.channels = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.first(x).mT).mT
        return x + self.channels(self.second(x))


class Mixer(nn.Module):
    """Patches whose places and channels are mixed by turns."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(1, WIDTH, 2, stride=2), nn.ModuleList(_MixerBlock() for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class Pooled(nn.Module):
    """The mean over tokens of what a transformer gives, and a linear layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.head = model, nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.model(input_ids=x).last_hidden_state.mean(1))


SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def bert() -> nn.Module:
    config = BertConfig(vocab_size=WORDS, max_position_embeddings=16, num_labels=CLASSES, **SIZES)
    return Logits(BertForSequenceClassification(config))


def distilbert() -> nn.Module:
    sizes = {"dim": WIDTH, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 16}
    return Logits(DistilBertForSequenceClassification(DistilBertConfig(WORDS, num_labels=CLASSES, **sizes)))


IMAGE = {"image_size": 8, "num_channels": 1, "num_labels": CLASSES}


def vit() -> nn.Module:
    return Logits(ViTForImageClassification(ViTConfig(patch_size=4, **IMAGE, **SIZES)))


def deit() -> nn.Module:
    return Logits(DeiTForImageClassification(DeiTConfig(patch_size=4, **IMAGE, **SIZES)))


def swin() -> nn.Module:
    sizes = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 2, "mlp_ratio": 2.0}
    return Logits(SwinForImageClassification(SwinConfig(patch_size=1, **IMAGE, **sizes)))


def t5() -> nn.Module:
    return Pooled(T5EncoderModel(T5Config(vocab_size=WORDS, d_model=WIDTH, d_kv=8, d_ff=64, num_layers=3, num_heads=4)))


def gpt2() -> nn.Module:
    config = GPT2Config(vocab_size=WORDS, n_positions=LENGTH, n_embd=WIDTH, n_layer=2, n_head=4, use_cache=False)
    return Pooled(GPT2Model(config))


NETS = {
    "residual and depthwise": (Cnn, "images"),
    "U-Net": (UNet, "images"),
    "DenseNet": (DenseNet, "images"),
    "ConvNeXt": (ConvNeXt, "images"),
    "LSTM": (lambda: Recurrent("LSTM"), "texts"),
    "GRU": (lambda: Recurrent("GRU"), "texts"),
    "TCN": (Tcn, "images"),
    "BERT": (bert, "texts"),
    "ViT": (vit, "images"),
    "Swin": (swin, "images"),
    "T5": (t5, "texts"),
    "GPT-2": (gpt2, "texts"),
    "MLP-Mixer": (Mixer, "images"),
    "DistilBERT": (distilbert, "texts"),
    "DeiT": (deit, "images"),
    "nn.TransformerEncoder": (Encoder, "images"),
    "attention by hand": (Hand, "images"),
    "grouped queries": (lambda: Hand(keys=4), "images"),
}
"""What builds a network, and the name of its task in tests/chain_nets.py."""


def net(name: str) -> nn.Module:
    """One of them, as a pipeline file builds it."""
    return NETS[name][0]()
