"""How PyTorch is set while its tracers, exporters and counters look through a module."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def slow_path() -> Iterator[None]:
    """Without nn.TransformerEncoder's fused inference path, which tracers and counters do not see through."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def forget_captures() -> None:
    """What PyTorch remembers of modules captured before, so that it fixes no length in the next one.

    The loop of an LSTM or GRU is compiled, and a check of an earlier one's length would hold for the next; and the
    dispatcher keeps which kernel a recurrent operator had, be it a loop or a copy of the cell for each step of the
    example (pytorch/pytorch#191855, #193192).
    """
    torch.compiler.reset()
    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        operator._dispatch_cache.clear()
