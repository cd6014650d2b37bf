"""How PyTorch is set while its tracers, exporters and counters look through a module."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.export import _patches as patches


@contextmanager
def slow_path() -> Iterator[None]:
    """Without nn.TransformerEncoder's fused inference path, which tracers and counters do not see through."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def recurrent_of_any_length() -> Iterator[None]:
    """With LSTM and GRU as loops in the graph, not as one copy of the cell for each step of the example.

    torch.onnx does so while it captures a module, but not when it decomposes what it captured, and what PyTorch then
    remembers of the operator makes the second recurrent module of a process export with one length alone
    (pytorch/pytorch#191855, #193192).
    """
    with patches.register_lstm_while_loop_decomposition(), patches.register_gru_while_loop_decomposition():
        yield
