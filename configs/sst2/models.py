"""A small recurrent reader of sentences whose tokens have short vectors."""

import torch
from torch import Tensor, nn

CLASSES = 2


class Reader(nn.Module):
    """Two LSTMs over token vectors, one in each direction, and the largest value that each unit takes.

    Args:
        vocabulary: number of tokens.
        embedding: numbers of a token's vector.
        hidden: units of each LSTM.
        dropout: in training, of the vectors and before the head.

    Reference: Tang, Lu, Liu, Mou, Vechtomova and Lin: Distilling Task-Specific Knowledge from BERT into Simple Neural
        Networks, 2019, arXiv:1903.12136, section 3.1; here with a maximum over time.
    """

    def __init__(self, vocabulary: int, embedding: int = 64, hidden: int = 160, dropout: float = 0.3) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, embedding)
        self.dropout = nn.Dropout(dropout)
        self.onward = nn.LSTM(embedding, hidden, batch_first=True)
        self.back = nn.LSTM(embedding, hidden, batch_first=True)
        self.head = nn.Linear(2 * hidden, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Ids and mask (N, L), int64, padded at the end -> `logits` (N, 2)."""
        x = self.dropout(self.tokens(input_ids))
        states = torch.cat([self.onward(x)[0], self.back(_reversed(x, attention_mask))[0]], dim=2)
        seen = states.masked_fill(attention_mask.unsqueeze(2) == 0, -1.0)  # no state of an LSTM is lower
        return {"logits": self.head(self.dropout(seen.amax(1)))}


def _reversed(x: Tensor, mask: Tensor) -> Tensor:
    """Each text of (N, L, D) from its last token to its first; the padding stays at the end.

    So one more LSTM reads backwards without packed sequences, which ONNX does not have.
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    last_first = (mask.sum(1, keepdim=True) - 1 - places).clamp(min=0)
    return x.gather(1, last_first.unsqueeze(2).expand(-1, -1, x.shape[2]))
