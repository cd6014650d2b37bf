"""Recurrent layers of torch.nn by their cells: one layer in one direction, whose units are channels."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
"""That the rows of a weight lie in, one after the other, each of all units."""

Lines = dict[str, tuple[int, list[int]]]
"""Parameter of a recurrent layer -> the axis of its channels, and some of them there."""


@dataclass(frozen=True, eq=False)
class _Part:
    """Of an LSTM, GRU or RNN.

    Args:
        owner: name of the recurrent layer.
        rnn: that layer.
        end: of the names of its weights: l0, l0_reverse, l1, ...
    """

    owner: str
    rnn: nn.RNNBase
    end: str

    def weight(self, kind: str) -> nn.Parameter:
        """One of weight_ih and weight_hh."""
        return self.rnn.get_parameter(f"{kind}_{self.end}")


class Cell(_Part):
    """A layer in one direction: it gives its units, and reads by its input weights."""

    @property
    def hidden_size(self) -> int:
        """Units."""
        return self.rnn.hidden_size

    def by_unit(self, values: Tensor) -> Tensor:
        """(units, numbers) of what has a row for each gate of each unit."""
        gates = GATES[self.rnn.mode]
        return values.reshape(gates, len(values) // gates, -1).transpose(0, 1).flatten(1)

    def lines(self, side: Any, channels: list[int]) -> Lines:
        """Where some units lie that it gives, or some columns that it reads."""
        if side == "in":
            return {f"weight_ih_{self.end}": (1, channels)}
        rows, gates = len(self.weight("weight_hh")), GATES[self.rnn.mode]
        lines = [first + unit for first in range(0, rows, rows // gates) for unit in channels]
        kinds = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if self.rnn.bias else ()))
        return {f"{kind}_{self.end}": (0, lines) for kind in kinds}


class State(_Part):
    """What a cell reads from step to step: its own units, at first those of a state that it begins with."""

    def lines(self, side: Any, channels: list[int]) -> Lines:
        """Where some units lie that it reads."""
        return {f"weight_hh_{self.end}": (1, channels)}


def cells(owner: str, rnn: nn.RNNBase) -> dict[str, Cell | State]:
    """The cells of a recurrent layer by name, and their states by theirs; no states where these are projected."""
    parts: dict[str, Cell | State] = {}
    for end in ends(rnn):
        parts[f"{owner}.{end}"] = Cell(owner, rnn, end)
        if not rnn.proj_size:
            parts[f"{owner}.{end}.state"] = State(owner, rnn, end)
    return parts


def ends(rnn: nn.RNNBase) -> list[str]:
    """Of the names of weights, one for each cell, as states are ordered."""
    turns = ("", "_reverse") if rnn.bidirectional else ("",)
    return [f"l{layer}{turn}" for layer in range(rnn.num_layers) for turn in turns]


def given(rnn: nn.RNNBase, output: Any) -> dict[str, list[Tensor]]:
    """By the end of a cell what it gives, its units last: its last states, and of the last layer all; views of these.

    Args:
        rnn: a recurrent layer.
        output: of it, a packed sequence or a tensor, and the states.
    """
    sequence, states = output
    values = {end: [one[i] for one in tensors(states)] for i, end in enumerate(ends(rnn))}
    last = [*values][-(1 + rnn.bidirectional) :]
    for end, part in zip(last, getattr(sequence, "data", sequence).chunk(len(last), -1), strict=True):
        values[end].append(part)
    return values


def tensors(states: Any) -> tuple[Tensor, ...]:
    """Those that a state is made of: two of an LSTM, one of others, none where there is no state."""
    if states is None:
        return ()
    return tuple(states) if isinstance(states, tuple | list) else (states,)


@contextmanager
def silenced(cell: Cell, units: list[int]) -> Iterator[None]:
    """Some units have no weights for as long as the block lasts: from a state of zeros on they give zero.

    The candidate of an LSTM or GRU is tanh(0) then, and what was in the state before is all that gates let through.
    """
    lines = [(cell.rnn.get_parameter(key).data, *at) for key, at in cell.lines("out", units).items()]
    before = [values.clone() for values, _, _ in lines]
    for values, axis, rows in lines:
        values.index_fill_(axis, torch.tensor(rows), 0)
    try:
        yield
    finally:
        for (values, _, _), whole in zip(lines, before, strict=True):
            values.copy_(whole)
