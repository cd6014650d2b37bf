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


class Excited(nn.Module):
    """Squeeze and excitation between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 3, 1)
        self.squeeze, self.excite = nn.Linear(16, 4), nn.Linear(4, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3))))))
        return self.o(y * gate[:, :, None, None])


class AttentionGate(nn.Module):
    """What is skipped is weighed at each pixel by what comes up, as in an attention U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(1, 12, 3, padding=1)
        self.skip, self.up, self.weight = nn.Conv2d(16, 8, 1), nn.Conv2d(12, 8, 1), nn.Conv2d(8, 1, 1)
        self.o = nn.Conv2d(28, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped, up = F.relu(self.a(x)), F.relu(self.b(x))
        gate = torch.sigmoid(self.weight(F.relu(self.skip(skipped) + self.up(up))))
        return self.o(torch.cat([skipped * gate, up], 1))


class Fixed(nn.Module):
    """A layer whose channels meet a buffer."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], columns: int = 16) -> None:
        super().__init__()
        self.run, self.a, self.o = run, nn.Conv1d(2, 16, 1), nn.Conv1d(columns, 2, 1)
        self.register_buffer("fixed", torch.randn(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


class Padded(nn.Module):
    """Three residual stages whose shortcuts are padded with channels of zeros, as option A of a ResNet has them.

    Args:
        before, after: zeros in front of and behind the channels of the second stage, and of the third.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.pad = (0, 0, before, after)
        wide, wider = 16 + before + after, 16 + 2 * (before + after)
        self.a, self.b, self.c = nn.Conv1d(2, 16, 1), nn.Conv1d(16, wide, 3, padding=1), nn.Conv1d(wide, wider, 1)
        self.norm, self.o = nn.BatchNorm1d(wide), nn.Linear(wider, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        y = F.relu(self.norm(self.b(y)) + F.pad(y, self.pad))
        y = F.relu(self.c(y) + F.pad(y, self.pad))
        return self.o(y.mean(2))


def images(run: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> Net:
    """A convolution of images to 16 channels, and others."""
    return Net(run, a=nn.Conv2d(1, 16, 3, padding=1), **layers)


def between(net: Any, x: Tensor) -> Tensor:
    """A second convolution between the two."""
    return net.o(F.relu(net.g(F.relu(net.a(x)))))


def swiglu(net: Any, x: Tensor) -> Tensor:
    gate, value = net.a(x).chunk(2, -1)
    return net.o(F.silu(gate) * value)


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
    "GLU of images": (
        Net(lambda s, x: s.o(s.g(s.a(x))), a=nn.Conv2d(1, 16, 1), g=nn.GLU(1), o=nn.Conv2d(8, 3, 1)),
        IMAGE,
        {"a": 2},
    ),
    "SwiGLU of one layer": (row(swiglu), ROW, {"a": 2}),
    "SwiGLU of two layers": (
        Net(lambda s, x: s.o(F.silu(s.a(x)) * s.b(x)), a=nn.Linear(4, 16), b=nn.Linear(4, 16), o=nn.Linear(16, 2)),
        ROW,
        {"a": 1},
    ),
    "pixels shuffled by a module": (
        images(lambda s, x: s.o(F.relu(s.p(s.a(x)))), p=nn.PixelShuffle(2), o=nn.Conv2d(4, 3, 1)),
        IMAGE,
        {"a": 4},
    ),
    "pixels shuffled by a function": (image(lambda s, x: s.o(F.pixel_shuffle(s.a(x), 2)), 4), IMAGE, {"a": 4}),
    "in groups": (
        images(between, g=nn.Conv2d(16, 8, 3, groups=4), o=nn.Conv2d(8, 3, 1)),
        IMAGE,
        {"a": 4, "g": 4},
    ),
    "transposed": (images(between, g=nn.ConvTranspose2d(16, 12, 2, 2), o=nn.Conv2d(12, 3, 1)), IMAGE, {"a": 1, "g": 1}),
    "transposed in groups": (
        images(between, g=nn.ConvTranspose2d(16, 12, 3, 2, groups=2), o=nn.Conv2d(12, 3, 1)),
        IMAGE,
        {"a": 2, "g": 2},
    ),
    "transposed, one by one": (
        images(between, g=nn.ConvTranspose2d(16, 16, 3, 2, groups=16), o=nn.Conv2d(16, 3, 1)),
        IMAGE,
        {"a": 1},
    ),
    "squeeze and excitation": (Excited(), IMAGE, {"a": 1, "squeeze": 1}),
    "an attention gate": (AttentionGate(), IMAGE, {"a": 1, "b": 1, "skip": 1}),
    "a buffer added": (Fixed(lambda s, x: s.o(F.relu(s.a(x)) + s.fixed)), SEQUENCE, {"a": 1}),
    "a buffer beside": (
        Fixed(lambda s, x: s.o(torch.cat([s.fixed.expand(len(x), 16, 8), F.relu(s.a(x))], 1)), 32),
        SEQUENCE,
        {"a": 1},
    ),
    "zeros around": (Padded(4, 4), SEQUENCE, {"c": 1}),
    "zeros behind": (Padded(0, 8), SEQUENCE, {"c": 1}),
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
    "a constant added": (row(lambda s, x: s.o(s.a(x) + torch.arange(32.0)), 32), ROW, {"a"}),
    "sizes of its own": (row(lambda s, x: s.o(s.a(x).view(-1, 4, 8).flatten(1)), 32), ROW, {"a"}),
    "one channel written": (sequence(lambda s, x: s.o(s.a(x).index_fill(1, torch.tensor([3]), 0))), SEQUENCE, {"a"}),
}
"""What -> (module, input, layers that keep all channels)."""
