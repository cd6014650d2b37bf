"""What layers read and give on calibration data."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from pipeline.context import Context
from pipeline.forms.tracing import slow_path
from pipeline.model import call

BATCH = 32

Look = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]
"""Is given a layer, the arguments of its call by position and by name, and its output."""


@contextmanager
def looking(module: nn.Module, looks: Mapping[str, Look]) -> Iterator[None]:
    """Each call of layers is seen, by the layer's name, without gradients and fused kernels, until the block ends."""
    with torch.no_grad(), slow_path(), ExitStack() as hooks:
        for name, look in looks.items():
            hooks.enter_context(module.get_submodule(name).register_forward_hook(look, with_kwargs=True))
        yield


def watch(module: nn.Module, looks: Mapping[str, Look], description: str, ctx: Context, examples: int = 0) -> None:
    """Have each call of layers seen, by the layer's name, in a copy on the context's device.

    Args:
        module: not changed.
        description: of the wait.
        examples: of calibration data at most; 0 for all.
    """
    count = min(len(ctx.calibration), examples or len(ctx.calibration))
    copied = copy.deepcopy(module).to(ctx.device).eval()
    with ctx.progress(description, count) as advance, looking(copied, looks):
        for batch in ctx.calibration.select(list(range(count))).loader(BATCH):
            call(copied, {name: value.to(ctx.device) for name, value in batch.inputs.items()})
            advance(len(batch.index))
