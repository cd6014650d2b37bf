"""How PyTorch is set while its tracers, exporters and counters look through a module, and why they stop at one."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from sysconfig import get_path
from traceback import extract_tb
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from pipeline.forms.text.remapped import split

OURS = Path(__file__).parents[2]
OTHERS = ("/torch/", "/onnxscript/", get_path("stdlib") + os.sep, str(OURS / "stages"), str(OURS / "pipeline"))
"""Parts of the names of files whose lines say nothing to who wrote a forward."""


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


class AttentionOfFourAxes(TorchFunctionMode):
    """While it is on, attention of three axes, which has no form in torch's exporter, runs as that of one head."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch, attention with an axis of heads."""
        kwargs = kwargs or {}
        if function is not scaled_dot_product_attention or {x.ndim for x in _tensors(args, kwargs)[:3]} != {3}:
            return function(*args, **kwargs)
        by_name = {name: _headed(value) for name, value in kwargs.items()}
        return function(*map(_headed, args), **by_name).squeeze(1)


def _tensors(args: Any, kwargs: Any) -> list[Tensor]:
    return [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]


def _headed(value: Any) -> Any:
    return value.unsqueeze(1) if isinstance(value, Tensor) and value.ndim == 3 else value


def for_export(module: nn.Module) -> nn.Module:
    """What is traced in the place of a module: what its own `for_export` gives, or else itself."""
    make: Callable[[], nn.Module] = getattr(module, "for_export", lambda: module)
    return make()


def rounded_otherwise(module: nn.Module) -> Callable[[], AbstractContextManager[None]] | None:
    """Makes a quantized module round its values at random, up or down, for a while; None where it rounds nothing."""
    core = split(module)[0]
    make: Callable[[], AbstractContextManager[None]] | None = getattr(core, "rounded_otherwise", None)
    return make


def forget_captures() -> None:
    """What PyTorch remembers of modules captured before, so that it fixes no length in the next one.

    The loop of an LSTM or GRU is compiled, and a check of an earlier one's length would hold for the next; and the
    dispatcher keeps which kernel a recurrent operator had, be it a loop or a copy of the cell for each step of the
    example (pytorch/pytorch#191855, #193192).
    """
    torch.compiler.reset()
    for operator in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        operator._dispatch_cache.clear()


def untraceable(error: Exception) -> tuple[str, str]:
    """Why the exporter stopped, in a clause with the line of the forward where it is told, and what to do."""
    cause: BaseException = error
    while cause.__cause__:
        cause = cause.__cause__
    reason = str(cause).strip().partition("\n")[0].rstrip(". ") or type(cause).__name__
    calls = re.findall(r'File "([^"]+)", line (\d+), in \w+\n +(.+)', str(error))
    calls = calls or [(call.filename, call.lineno, call.line) for call in extract_tb(cause.__traceback__)]
    theirs = [call for call in calls if not any(part in call[0] for part in OTHERS)]
    lines = [f" in {Path(file).name}:{line}, `{code}`" for file, line, code in theirs]
    place = lines[-1] if lines else ""
    if type(cause).__name__ == "GuardOnDataDependentSymNode":
        fix = "Put a check under `if not torch.compiler.is_exporting():`, and write a choice as torch.where"
        return f"the path of the forward depends on the values of a tensor{place}", fix
    if node := re.search(r"translating node %(\w+?)(?:_\d+)? ", str(error)):
        return f"the exporter has no form of `{node[1]}` here: {reason}", "Write it by other operators of torch"
    return f"{reason}{place}", "The forward must be traceable by torch.export"
