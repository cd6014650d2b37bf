"""Small networks with recurrent layers: units that can leave, and those that cannot."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.stages.prune.coupling.nets import Net

SIZE = 16
X = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))


def rnn(
    kind: str, inputs: int = 6, size: int = SIZE, layers: int = 1, both: bool = False, **options: Any
) -> nn.RNNBase:
    return getattr(nn, kind)(inputs, size, layers, bidirectional=both, **{"batch_first": True, **options})


def head(inputs: int = SIZE) -> nn.Linear:
    return nn.Linear(inputs, 3)


def from_state(net: Any, x: Tensor) -> Tensor:
    return net.o(net.d(x.flip(1), net.e(x)[1])[0])


def from_both_states(net: Any, x: Tensor) -> Tensor:
    states = tuple(torch.cat([*state], -1)[None] for state in net.e(x)[1])
    return net.o(net.d(x, states)[0])


def by_a_layer(net: Any, x: Tensor) -> Tensor:
    state = torch.tanh(net.b(torch.cat([*net.e(x)[1][0]], -1)))
    return net.o(net.d(x, state[None])[0])


def begun(net: Any, x: Tensor, state: Tensor) -> Tensor:
    return net.o(net.r(x, (state, state))[0][:, -1])


def packed(net: Any, x: Tensor) -> Tensor:
    sequence = pack_padded_sequence(x, torch.tensor([5, 4, 3, 2]), batch_first=True)
    return net.o(pad_packed_sequence(net.r(sequence)[0], batch_first=True)[0].amax(1))


def by_steps(net: Any, x: Tensor) -> Tensor:
    state, outputs = None, []
    for step in x.split(1, 1):
        output, state = net.r(step, state)
        outputs.append(net.o(output))
    return torch.cat(outputs, 1)


def residual(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)
    x = x + net.r(x)[0]
    return net.o((x + net.q(x)[0]).mean(1))


def attention(net: Any, x: Tensor) -> Tensor:
    y, (state, _) = net.r(x)
    return net.o(((y @ state[-1, :, :, None]).softmax(1) * y).sum(1))


class Begun(Net):
    """With the hidden size as an integer of its own, and a first state that is learnt."""

    def __init__(self, *args: Any, **layers: nn.Module) -> None:
        super().__init__(*args, **layers)
        self.hidden_size = SIZE
        self.first = nn.Parameter(torch.randn(2, 1, SIZE))


def tied() -> Net:
    net = Net(
        lambda s, x: s.o(s.r(s.e(x[..., 0].abs().long()))[0]),
        e=nn.Embedding(9, SIZE),
        r=rnn("LSTM", SIZE),
        o=nn.Linear(SIZE, 9),
    )
    net.o.weight = net.e.weight
    return net


STACK = {"r": rnn("LSTM", layers=2), "o": head()}
RIGHT = {
    "last step of two layers in both directions": (
        Net(lambda s, x: s.o(s.r(x)[0][:, -1]), r=rnn("LSTM", layers=2, both=True), o=head(2 * SIZE)), {"r": 4}
    ),
    "mean, time first, without bias": (
        Net(lambda s, x: s.o(s.r(x.mT.mT)[0].mean(0)), r=rnn("GRU", layers=2, both=True, batch_first=False, bias=False),
            o=head(2 * SIZE)), {"r": 4}
    ),
    "an embedding before": (
        Net(lambda s, x: s.o(s.r(s.e(x[..., 0].abs().long()))[0].mean(1)), e=nn.Embedding(9, 6), r=rnn("GRU"),
            o=head()), {"r": 0},
    ),
    "the last hidden state": (Net(lambda s, x: s.o(s.r(x)[1][0][-1]), **STACK), {"r": 2}),
    "the last cell state": (Net(lambda s, x: s.o(s.r(input=x)[1][1][-1]), **STACK), {"r": 2}),
    "all hidden states": (
        Net(lambda s, x: s.o(s.r(x)[1].transpose(0, 1).flatten(1)), r=rnn("RNN", layers=2, both=True),
            o=head(4 * SIZE)), {"r": 4},
    ),
    "the sum of hidden states": (
        Net(lambda s, x: s.o(s.r(x)[1].sum(0)), r=rnn("GRU", layers=2, both=True), o=head()), {"r": 0}
    ),
    "one example": (Net(lambda s, x: s.o(s.r(x[0])[0]), **STACK), {"r": 2}),
    "packed": (Net(packed, r=rnn("LSTM", layers=2, both=True), o=head(2 * SIZE)), {"r": 4}),
    "by steps": (Net(by_steps, r=rnn("RNN", layers=2, nonlinearity="relu"), o=head()), {"r": 2}),
    "a norm behind": (
        Net(lambda s, x: s.o(s.n(s.r(x)[0]).mean(1)), r=rnn("LSTM", both=True), n=nn.LayerNorm(2 * SIZE),
            o=head(2 * SIZE)), {"r": 2},
    ),
    "gated halves": (Net(lambda s, x: s.o(F.glu(s.r(x)[0])), r=rnn("LSTM"), o=head(SIZE // 2)), {"r": 0}),
    "one behind another": (
        Net(lambda s, x: s.o(s.q(s.r(x)[0])[0]), r=rnn("LSTM", both=True), q=rnn("GRU", 2 * SIZE), o=head()),
        {"r": 2, "q": 0},
    ),
    "a layer before": (
        Net(lambda s, x: s.o(s.r(s.a(x).relu())[0]), a=nn.Linear(6, 8), r=rnn("LSTM", 8, layers=2, both=True),
            o=head(2 * SIZE)), {"a": 0, "r": 4}
    ),
    "a residual sum": (
        Net(residual, a=nn.Linear(6, 2 * SIZE), r=rnn("LSTM", 2 * SIZE, layers=2, both=True),
            q=rnn("GRU", 2 * SIZE, both=True), o=head(2 * SIZE)), {"r": 3}
    ),
    "a decoder that begins with the states": (
        Net(from_state, e=rnn("LSTM", layers=2), d=rnn("LSTM", layers=2), o=head()), {"e": 2}
    ),
    "a decoder that begins with those of both directions": (
        Net(from_both_states, e=rnn("LSTM", both=True), d=rnn("LSTM", size=2 * SIZE), o=head(2 * SIZE)), {"e": 0}
    ),
    "a layer between": (
        Net(by_a_layer, e=rnn("LSTM", both=True), b=nn.Linear(2 * SIZE, SIZE), d=rnn("GRU"), o=head()), {"e": 2, "d": 0}
    ),
    "states of zeros": (Begun(lambda s, x: begun(s, x, torch.zeros(2, len(x), s.hidden_size)), **STACK), {"r": 2}),
    "a first state that is learnt": (
        Begun(lambda s, x: begun(s, x, s.first.expand(-1, len(x), -1).contiguous()), **STACK), {"r": 0}
    ),
}  # fmt: skip
"""What -> (module, root -> members): all of these units can leave."""

WHOLE = {
    "its output is the model's": (Net(lambda s, x: s.r(x)[0], r=rnn("LSTM", layers=2)), ()),
    "states of another width": (Net(lambda s, x: begun(s, x, torch.zeros(2, len(x), SIZE)), **STACK), ("r",)),
    "states that are not zero": (
        Net(lambda s, x: begun(s, x, x.new_ones(2, len(x), s.r.hidden_size)), **STACK), ("r",)
    ),
    "projected": (Net(lambda s, x: s.o(s.r(x)[0]), r=rnn("LSTM", layers=2, proj_size=8), o=head(8)), ("r",)),
    "a softmax of units": (Net(lambda s, x: s.o(s.r(x)[0].softmax(-1)), r=rnn("LSTM"), o=head()), ("r",)),
    "a sigmoid that a layer reads": (Net(lambda s, x: s.o(s.r(x)[0].sigmoid()), r=rnn("LSTM"), o=head()), ("r",)),
    "added to its mirror image": (
        Net(lambda s, x: s.o(s.r(x)[0].flip(-1) + s.a(x)), r=rnn("GRU"), a=nn.Linear(6, SIZE), o=head()), ("r", "a")
    ),
    "attention": (Net(attention, r=rnn("LSTM"), o=head()), ("r",)),
    "weights of its head tied": (tied(), ("r",)),
}  # fmt: skip
"""What -> (module, what is said to keep all units)."""
