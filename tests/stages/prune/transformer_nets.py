"""Tiny transformers of every kind over 8x8 images: of `transformers`, of torch, and by hand."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    SwinConfig,
    SwinForImageClassification,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTForImageClassification,
)

WORDS, CLASSES = 20, 4
VISION = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
IMAGE = {"image_size": 8, "num_channels": 1, "num_labels": CLASSES}


class OfPixels(nn.Module):
    """A text model whose tokens are the first rows of the image."""

    def __init__(self, model: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, x: Tensor) -> Tensor:
        tokens = (x.flatten(1)[:, :24] * (WORDS - 4)).long().clamp(0, WORDS - 4) + 3
        outputs = self.model(tokens)
        return outputs.logits if self.head is None else self.head(outputs.last_hidden_state.mean(1))


class OfImages(nn.Module):
    """The logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def bert() -> nn.Module:
    return OfPixels(BertForSequenceClassification(BertConfig(vocab_size=WORDS, num_labels=CLASSES, **VISION)))


def distilbert() -> nn.Module:
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    return OfPixels(DistilBertForSequenceClassification(DistilBertConfig(WORDS, num_labels=CLASSES, **sizes)))


def gpt2() -> nn.Module:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 32}
    return OfPixels(GPT2ForSequenceClassification(GPT2Config(WORDS, num_labels=CLASSES, pad_token_id=0, **sizes)))


def llama() -> nn.Module:
    """With a key for each two queries, gates, and a size of heads of its own."""
    sizes = {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "num_labels": CLASSES}
    return OfPixels(LlamaForSequenceClassification(LlamaConfig(vocab_size=WORDS, **sizes, **VISION)))


def t5() -> nn.Module:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return OfPixels(T5EncoderModel(T5Config(vocab_size=WORDS, **sizes)), nn.Linear(32, CLASSES))


def vit() -> nn.Module:
    return OfImages(ViTForImageClassification(ViTConfig(patch_size=2, **IMAGE, **VISION)))


def deit() -> nn.Module:
    return OfImages(DeiTForImageClassification(DeiTConfig(patch_size=2, **IMAGE, **VISION)))


def swin(heads: Sequence[int] = (4, 4)) -> nn.Module:
    sizes = {"patch_size": 1, "embed_dim": 16, "depths": [2, 1], "num_heads": [*heads], "window_size": 4}
    return OfImages(SwinForImageClassification(SwinConfig(**IMAGE, **sizes)))


class Encoder(nn.Module):
    """nn.TransformerEncoder over the rows of the image, with a mask where a row is dark."""

    def __init__(self, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, heads, 48, batch_first=True), layers)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.squeeze(1)
        return self.head(self.encoder(self.embed(rows), src_key_padding_mask=rows.mean(2) < 0.45).mean(1))


class Hand(nn.Module):
    """A block with queries, keys and values in one layer; with fewer keys than queries, each for several of these.

    Args:
        heads: of the queries.
        keys: of the keys and values.
        each: channels of a head.
        fixed: whether the forward has their number as a literal.
        norm: whether there is a batch normalization in the feed-forward part.
    """

    def __init__(self, heads: int = 8, keys: int = 8, each: int = 4, fixed: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.n_heads, self.n_keys, self.each, self.fixed = heads, keys, each, fixed
        self.inner, self.narrow = heads * each, keys * each
        self.embed = nn.Linear(8, 32)
        self.norm = nn.LayerNorm(32)
        self.qkv = nn.Linear(32, self.inner + 2 * self.narrow)
        self.out = nn.Linear(self.inner, 32)
        self.up, self.down = nn.Linear(32, 48), nn.Linear(48, 32)
        self.scaled = nn.BatchNorm1d(48) if norm else None
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.squeeze(1))
        x = x + self.attended(self.norm(x))
        inner = self.up(x)
        inner = self.scaled(inner.mT).mT if self.scaled else inner
        x = x + self.down(torch.relu(inner))
        return self.head(x.mean(1))

    def attended(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        heads = 8 if self.fixed else self.n_heads
        q, k, v = self.qkv(x).split([self.inner, self.narrow, self.narrow], -1)
        q = q.view(batch, length, heads, self.each).transpose(1, 2)
        keys = (part.view(batch, length, self.n_keys, self.each).transpose(1, 2) for part in (k, v))
        k, v = (part.repeat_interleave(heads // self.n_keys, 1) for part in keys)
        weights = (q @ k.transpose(-1, -2) / self.each**0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, length, self.inner))
