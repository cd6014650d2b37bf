"""Networks with layers that factors can, and cannot, stand for."""

import torch
from torch import Tensor, nn


class Wide(nn.Module):
    """Linear layers of 64, 48 and 32: (N, 1, 8, 8) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(64, 48), nn.Linear(48, 32, bias=False), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.two(torch.relu(self.one(x.flatten(1))))))


class Kinds(nn.Module):
    """A plain layer, and one of each kind that stays: (N, 1, 8, 8) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.plain = nn.Linear(8, 32), nn.Linear(32, 32)
        self.read, self.hooked, self.own = nn.Linear(32, 32), nn.Linear(32, 32), Shifted(32, 32)
        self.tied, self.other = nn.Linear(32, 32), nn.Linear(32, 32)
        self.other.weight = self.tied.weight
        self.grouped, self.transposed = nn.Conv1d(32, 32, 3, padding=1, groups=4), nn.ConvTranspose1d(32, 32, 1)
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)
        self.auxiliary, self.head = nn.Linear(32, 4), nn.Linear(32, 4)
        self.hooked.register_forward_hook(lambda part, args, output: output * 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x.squeeze(1)))
        x = self.own(self.hooked(self.plain(x))).to(self.read.weight.dtype)
        x = self.read(x)
        x = self.tied(x) + self.other(x) + self.transposed(self.grouped(x.mT)).mT
        x = self.attention(x, x, x)[0].mean(1)
        return self.head(x) + self.auxiliary(x) if self.training else self.head(x)


class Shifted(nn.Linear):
    """A linear layer with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Masked(nn.Module):
    """nn.TransformerEncoder, which runs fused and on nested tensors where it can; padding is read, or not."""

    def __init__(self, reads: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, dim_feedforward=64, batch_first=True)
        self.encoder, self.head, self.reads = nn.TransformerEncoder(layer, 2), nn.Linear(32, 4), reads

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.encoder(x, src_key_padding_mask=~mask)
        return self.head((x if self.reads else x * mask[..., None]).sum(1))


class Shared(nn.Module):
    """One layer by two names, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.twice = nn.Linear(32, 32), nn.Linear(32, 32)
        self.other = self.one

    def forward(self, x: Tensor) -> Tensor:
        return self.twice(torch.relu(self.twice(self.other(torch.relu(self.one(x))))))


class Noisy(nn.Module):
    """In training another result at each call, whatever torch's seed."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        Noisy.calls += 1
        return self.plain(x) * (Noisy.calls if self.training else 1)
