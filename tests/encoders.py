"""Tiny encoders of transformers from their configurations."""

from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)

WORDS, CLASSES = 50, 4


class OfTexts(nn.Module):
    """Logits by name of ids and a mask."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return {"logits": self.model(input_ids=input_ids, attention_mask=attention_mask).logits}


class OfOneInput(nn.Module):
    """Logits as a tensor of the only input."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logits


def _bert() -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(vocab_size=WORDS, num_labels=CLASSES, **sizes))


def bert() -> nn.Module:
    return OfTexts(_bert())


def bert_alone() -> nn.Module:
    return OfOneInput(_bert())


def distilbert() -> nn.Module:
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    return OfTexts(DistilBertForSequenceClassification(DistilBertConfig(vocab_size=WORDS, num_labels=CLASSES, **sizes)))


def vit() -> nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=CLASSES, **sizes)
    return OfOneInput(ViTForImageClassification(config))
