"""The model of a folder that version 0.1.0 saved; see tests/pipeline/test_saved_before.py."""

import torch
from torch import Tensor, nn


class Reader(nn.Module):
    """Token ids (N, L) -> (N, 2), through a list of layers."""

    def __init__(self, tokens: int = 260, width: int = 8) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.wide, self.head = nn.Linear(width, 2 * width), nn.Linear(2 * width, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask[..., None].to(self.tokens.weight.dtype)
        x = (self.tokens(input_ids) * mask).sum(1) / mask.sum(1)
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.head(torch.relu(self.wide(x)))
