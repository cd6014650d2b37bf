"""Whether channels can leave a module, by values: where they are dead, the module without them gives the same."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.errors import StageError, blame
from pipeline.forms.tracing import slow_path
from pipeline.model import call, same
from stages.prune.coupling.cells import Cell, given, silenced
from stages.prune.coupling.parts import LAYERS, Part, Place, axis_of, is_norm, known, loose, remove

Values = dict[str, list[Tensor]]


def shaken(module: nn.Module) -> nn.Module:
    """A copy with other weights of the same size, none of them zero: zeros and symmetries would hide a wrong cut."""
    generator = torch.Generator().manual_seed(0)
    shaken_module = copy.deepcopy(module).requires_grad_(False)
    for weight in shaken_module.parameters():
        if weight.is_floating_point():
            one, other = (torch.randn(weight.shape, generator=generator).to(weight) for _ in range(2))
            fan_in = weight[0].numel() if weight.ndim > 1 else 1
            weight.mul_(1 + 0.3 * one).add_(0.1 * fan_in**-0.5 * other)
    return shaken_module


def same_without(module: nn.Module, example: Inputs, gone: Mapping[Place, list[int]]) -> bool:
    """Whether a module gives the same where some channels are dead and where they are gone.

    What is compared is the module with the channels set to zero wherever they come out, and norms that take statistics
    of several channels taking them of the others alone; and the smaller one. Every convolution, linear and recurrent
    layer is compared at the channels that stay, as it runs, so that nothing after it can level a difference. Units of a
    recurrent layer have weights of zero instead: they are dead unless they begin with a state that is not zero.

    Args:
        module: one of `shaken`; as it was, afterwards.
        example: a batch of its inputs.
        gone: place -> the channels that leave.

    Raises:
        StageError: the module does not run with dead channels or without them, or tied parameters would lose different
            ones.
    """
    smaller = copy.deepcopy(module)
    remove(smaller, gone)
    names = [name for name, part in module.named_modules() if isinstance(part, (*LAYERS, nn.RNNBase))]
    with watched(smaller, names) as values, blame(StageError, "the model without some channels"):
        after = {"": [*outputs(smaller, example).values()], **values}
    with _silenced(module, smaller, gone), watched(module, names) as values, blame(StageError, "with dead channels"):
        before = {"": [*outputs(module, example).values()], **values}
    parts = known(module)
    for name in before:
        channels = gone.get(Place(name, "out"), [])
        rest = [_without(output, parts[name], channels) if channels else output for output in before[name]]
        if len(rest) != len(after.get(name, [])) or not all(map(same, rest, after[name])):
            return False
    return True


def misfits(names: Iterable[str], fits: Callable[[list[str]], bool]) -> list[str]:
    """Those without which all others fit together.

    The first that do not fit together are found by bisection: the last of them leaves, and so on.

    Args:
        names: what is tried.
        fits: whether some of them do.
    """
    rest, wrong = [*names], list[str]()
    while rest and not fits(rest):
        low, high = 0, len(rest)  # so many of the first fit, so many do not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(rest[:middle]) else (low, middle)
        wrong.append(rest.pop(low))
    return wrong


@contextmanager
def watched(module: nn.Module, names: Iterable[str]) -> Iterator[Values]:
    """What each of these submodules gives, at each call; of recurrent layers, what each of their cells does."""
    values: Values = {}

    def keep(name: str, part: nn.Module, args: Any, output: Any) -> None:
        by_end = given(part, output) if isinstance(part, nn.RNNBase) else {"": [output]}
        for end, some in by_end.items():  # cloned as it is: what follows may write into it
            values.setdefault(f"{name}.{end}" if end else name, []).extend(value.clone() for value in some)

    with ExitStack() as hooks:
        for name in names:
            hooks.enter_context(module.get_submodule(name).register_forward_hook(partial(keep, name)))
        yield values


def outputs(module: nn.Module, example: Inputs) -> dict[str, Tensor]:
    """What a module gives on an example, without fused kernels for a whole encoder layer."""
    with torch.no_grad(), slow_path():
        return call(module, example)


@contextmanager
def _silenced(module: nn.Module, smaller: nn.Module, gone: Mapping[Place, list[int]]) -> Iterator[None]:
    """The channels are zero wherever they come out, for as long as the block lasts."""
    tensors, parts = loose(module), known(module)
    with ExitStack() as undo:
        for (name, side), channels in gone.items():
            if side == "size":
                continue
            if isinstance(side, int):
                undo.callback(tensors[name].copy_, tensors[name].clone())
                tensors[name].index_fill_(side, torch.tensor(channels), 0)
                continue
            part = parts[name]
            if is_norm(part):
                hook: Any = partial(_of_the_others, smaller.get_submodule(name), channels)
                undo.enter_context(module.get_submodule(name).register_forward_hook(hook))
            elif side == "out" and isinstance(part, Cell):
                undo.enter_context(silenced(part, channels))
            elif side == "out" and not isinstance(part, nn.RNNBase):
                undo.enter_context(module.get_submodule(name).register_forward_hook(partial(_zero, channels)))
        yield


def _zero(channels: list[int], part: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output.index_fill(axis_of(part, output), torch.tensor(channels), 0)


def _of_the_others(norm: nn.Module, channels: list[int], part: nn.Module, args: Any, output: Tensor) -> Tensor:
    """What a norm gives for the other channels alone, with zeros in between."""
    axis = axis_of(part, output)
    rest = torch.tensor(sorted(set(range(output.shape[axis])) - set(channels)))
    return torch.zeros_like(output).index_copy_(axis, rest, norm(args[0].index_select(axis, rest)))


def _without(output: Tensor, part: Part, channels: list[int]) -> Tensor:
    axis = axis_of(part, output)
    return output.index_select(axis, torch.tensor(sorted(set(range(output.shape[axis])) - set(channels))))
