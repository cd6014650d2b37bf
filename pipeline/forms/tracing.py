"""How PyTorch is set while its tracers, exporters and counters look through a module."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


@contextmanager
def slow_path() -> Iterator[None]:
    """Without nn.TransformerEncoder's fused inference path, which tracers and counters do not see through."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def always_slow(module: nn.Module) -> list[RemovableHandle]:
    """Have each forward of a module take the slow path, until the handles are removed."""
    paths = ExitStack()
    begin = module.register_forward_pre_hook(lambda *_: paths.enter_context(slow_path()))
    # Of several that watch a module the last to begin is the first to end.
    end = module.register_forward_hook(lambda *_: paths.close(), prepend=True, always_call=True)
    return [begin, end]


def forget_captures() -> None:
    """What PyTorch remembers of modules captured before, so that it fixes no length in the next one.

    The loop of an LSTM or GRU is compiled, and a check of an earlier one's length would hold for the next; and the
    dispatcher keeps which kernel a recurrent operator had, be it a loop or a copy of the cell for each step of the
    example (pytorch/pytorch#191855, #193192).
    """
    torch.compiler.reset()
    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        operator._dispatch_cache.clear()
