"""A small encoder for sentences whose tokens have short vectors, widened by one matrix."""

import torch
from torch import Tensor, nn

CLASSES = 2


class Reader(nn.Module):
    """Transformer over token vectors, and a mean over the tokens.

    Args:
        vocabulary: number of tokens.
        embedding: numbers of a token's vector.
        width: of the transformer, a multiple of `heads`.
        layers, heads, feed_forward: of the transformer.
        longest: tokens of a text at most; a pruned vocabulary may cut a text into more than the whole one did.
        dropout: in training, of the vectors and inside the layers.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 64,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        feed_forward: int = 256,
        longest: int = 128,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, embedding)
        self.places = nn.Embedding(longest, embedding)
        self.wider = nn.Linear(embedding, width)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            width, heads, feed_forward, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Ids and mask (N, L), int64 -> `logits` (N, 2)."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.wider(self.dropout(self.tokens(input_ids) + self.places(places)))
        x = self.norm(self.layers(x, src_key_padding_mask=attention_mask == 0))
        shown = attention_mask.unsqueeze(-1).to(x.dtype)
        return {"logits": self.head((x * shown).sum(1) / shown.sum(1).clamp(min=1))}
