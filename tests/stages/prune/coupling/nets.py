"""Small networks in which channels change their places on the way to what reads them, or cannot be told apart."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE, SEQUENCE, ROW = torch.rand(3, 1, 4, 4) - 0.3, torch.randn(3, 2, 8), torch.randn(3, 4)


class Net(nn.Module):
    """Layers by name, and what is done with them: forward(net, x)."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def image(run: Callable[[Any, Tensor], Tensor], columns: int = 16, width: int = 16) -> Net:
    """A convolution of images, whose channels reach the columns of another one."""
    return Net(run, a=nn.Conv2d(1, width, 3, padding=1), o=nn.Conv2d(columns, 3, 1))


def flat(run: Callable[[Any, Tensor], Tensor]) -> Net:
    """A convolution of images, whose channels reach a linear layer."""
    return Net(run, a=nn.Conv2d(1, 16, 3, padding=1), o=nn.Linear(16 * 16, 5))


def sequence(run: Callable[[Any, Tensor], Tensor], columns: int = 16) -> Net:
    """As `image`, of sequences, and with a second layer."""
    return Net(run, a=nn.Conv1d(2, 16, 1), b=nn.Conv1d(2, 16, 1), o=nn.Conv1d(columns, 2, 1))


def row(run: Callable[[Any, Tensor], Tensor], columns: int = 16, width: int = 32) -> Net:
    """As `image`, of linear layers."""
    return Net(run, a=nn.Linear(4, width), o=nn.Linear(columns, 2))


def shuffled(y: Tensor) -> Tensor:
    """As ShuffleNet does with two groups of channels."""
    n, c, *rest = y.shape
    return y.view(n, 2, c // 2, *rest).transpose(1, 2).reshape(y.shape)


def positions(y: Tensor) -> Tensor:
    """Two channels with the place of each pixel, as CoordConv has them in front."""
    steps = torch.linspace(-1, 1, 4).expand(len(y), 1, 4, 4)
    return torch.cat([steps, steps.mT, y], 1)


def finite(y: Tensor) -> Tensor:
    if not y.isfinite().all():
        raise ValueError("not finite")
    return y


def halved(net: Any, x: Tensor) -> Tensor:
    one, other = net.a(x).chunk(2, 1)
    return net.o(torch.maximum(one, other))


RIGHT = {
    "the input in front": (sequence(lambda s, x: s.o(torch.cat([x, F.relu(s.a(x))], 1)), 18), SEQUENCE, {"a": 1}),
    "positions in front": (image(lambda s, x: s.o(positions(F.relu(s.a(x)))), 18), IMAGE, {"a": 1}),
    "two in turn": (sequence(lambda s, x: s.o(torch.cat([s.b(x), F.relu(s.a(x))], 1)), 32), SEQUENCE, {"a": 1, "b": 1}),
    "channels last, flat": (flat(lambda s, x: s.o(F.relu(s.a(x)).permute(0, 2, 3, 1).flatten(1))), IMAGE, {"a": 1}),
    "transposed, reshaped": (flat(lambda s, x: s.o(s.a(x).transpose(1, 2).reshape(len(x), -1))), IMAGE, {"a": 1}),
    "shuffled": (image(lambda s, x: s.o(shuffled(F.relu(s.a(x))))), IMAGE, {"a": 2}),
    "flipped": (sequence(lambda s, x: s.o(F.relu(s.a(x)).flip(1))), SEQUENCE, {"a": 1}),
    "halves": (row(halved), ROW, {"a": 2}),
    "gated halves": (row(lambda s, x: s.o(F.glu(s.a(x)))), ROW, {"a": 2}),
    "twice": (sequence(lambda s, x: s.o(torch.cat([s.a(x), -s.a(x)], 1)), 32), SEQUENCE, {"a": 1}),
    "in turns": (sequence(lambda s, x: s.o(torch.stack([s.a(x), s.b(x)], 2).flatten(1, 2)), 32), SEQUENCE, {"a": 1}),
    "detached": (sequence(lambda s, x: s.o(s.a(x)) + s.o(s.a(x).detach() * 2)), SEQUENCE, {"a": 1}),
    "unshuffled pixels": (image(lambda s, x: s.o(F.pixel_unshuffle(F.relu(s.a(x)), 2)), 64), IMAGE, {"a": 1}),
    "added to two": (
        Net(
            lambda s, x: s.o(s.a(x) + torch.cat([s.b(x), s.c(x)], 1)),
            **{n: nn.Linear(4, w) for n, w in (("a", 24), ("b", 16), ("c", 8))},
            o=nn.Linear(24, 2),
        ),
        ROW,
        {"a": 1},
    ),
    "into a GRU": (
        Net(lambda s, x: s.g(F.relu(s.a(x)).mT)[0].mean(1), a=nn.Conv1d(2, 16, 1), g=nn.GRU(16, 4, batch_first=True)),
        SEQUENCE,
        {"a": 1},
    ),
}
"""What -> (module, input, root -> parts): all of these channels can leave."""

WHOLE = {
    "maxout of neighbours": (row(lambda s, x: s.o(s.a(x).view(len(x), -1, 2).amax(-1))), ROW, {"a"}),
    "every other": (
        Net(
            lambda s, x: s.o(s.a(x)[:, ::2]) + s.b(s.a(x)[:, 1::2]),
            a=nn.Linear(4, 16),
            **{name: nn.Linear(8, 2) for name in "ob"},
        ),
        ROW,
        {"a"},
    ),
    "refused by the forward": (sequence(lambda s, x: s.o(finite(F.relu(s.a(x))))), SEQUENCE, {"a"}),
    "rolled": (sequence(lambda s, x: s.o(F.relu(s.a(x)).roll(1, 1))), SEQUENCE, {"a"}),
    "summed up": (sequence(lambda s, x: s.o(s.a(x).cumsum(1))), SEQUENCE, {"a"}),
    "position of the largest": (
        sequence(lambda s, x: s.o(F.relu(s.a(x))) + s.a(x).argmax(1, keepdim=True)),
        SEQUENCE,
        {"a"},
    ),
    "mean of channels": (sequence(lambda s, x: s.o(s.a(x) * s.a(x).mean(1, keepdim=True))), SEQUENCE, {"a"}),
    "softmax of channels": (sequence(lambda s, x: s.o(s.a(x).softmax(1))), SEQUENCE, {"a"}),
    "added to its mirror image": (sequence(lambda s, x: s.o(s.a(x) + s.b(x).flip(1))), SEQUENCE, {"a", "b"}),
    "never zero": (row(lambda s, x: s.o(torch.sigmoid(s.a(x))), 32), ROW, {"a"}),
    "shuffled pixels": (image(lambda s, x: s.o(F.pixel_shuffle(s.a(x), 2)), 4), IMAGE, {"a"}),
    "sizes of its own": (row(lambda s, x: s.o(s.a(x).view(-1, 4, 8).flatten(1)), 32), ROW, {"a"}),
    "one channel written": (sequence(lambda s, x: s.o(s.a(x).index_fill(1, torch.tensor([3]), 0))), SEQUENCE, {"a"}),
}
"""What -> (module, input, layers that keep all channels)."""
