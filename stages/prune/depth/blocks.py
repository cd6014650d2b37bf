"""Which blocks of a network can be left out: those that give values of the shape that comes in."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.errors import StageError, blame
from pipeline.forms.tracing import slow_path
from pipeline.model import call
from stages.layerwise.calibration import looking
from stages.prune.depth.bypass import Bypass
from stages.prune.ignored import is_in


class Found(NamedTuple):
    """The blocks of a module.

    Args:
        blocks: name -> the `rest` of the bypass that can take its place, in the order in which they run.
        others: names of those beside them that cannot be left out, as those that halve an image.
    """

    blocks: dict[str, list[str | int | None] | None]
    others: list[str]


def find(module: nn.Module, example: Inputs, ignore: Sequence[str] = ()) -> Found:
    """Blocks are the parts of an nn.Sequential or nn.ModuleList that are no single layers; of nested ones the outer.

    Args:
        module: in evaluation mode; it is as it was afterwards.
        example: a batch of its inputs.
        ignore: names of submodules that stay, and with each of them all blocks that it is in.
    """
    names = [
        name for name in _in_rows(module) if not is_in(name, ignore) and not any(_is_within(n, name) for n in ignore)
    ]
    forms: dict[str, Any] = {}
    order: list[str] = []

    def see(name: str, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        order.append(name)
        forms[name] = None if forms.get(name, ()) is None else _form(args, kwargs, output)

    with looking(module, {name: partial(see, name) for name in names}):
        answers = call(module, example)

    def can_leave(name: str) -> bool:
        return forms[name] is not None and _can_leave(module, example, answers, name, forms[name])

    free = [name for name in dict.fromkeys(order) if can_leave(name)]
    blocks = {name: forms[name].rest for name in free if not any(_is_within(name, other) for other in free)}
    rest = [name for name in names if name in forms and name not in free]
    near = [name for name in rest if not any(_is_within(name, b) or _is_within(b, name) for b in blocks)]
    return Found(blocks, [name for name in near if not any(_is_within(name, other) for other in near)])


@contextmanager
def without(module: nn.Module, blocks: Mapping[str, Any]) -> Iterator[None]:
    """The module with bypasses in place of some blocks, for as long as the context lasts."""
    with ExitStack() as undo:
        for name, rest in blocks.items():
            owner, _, key = name.rpartition(".")
            undo.callback(setattr, module.get_submodule(owner), key, module.get_submodule(name))
            setattr(module.get_submodule(owner), key, Bypass(rest).train(module.training))
        yield


def _can_leave(module: nn.Module, example: Inputs, answers: Inputs, name: str, form: "_Form") -> bool:
    """Whether others want no more than what a bypass gives: the module runs with it, and does not read what it lacks.

    What is read is seen by NaN in its place, as the weights of attention that a block gives for those who ask for them.
    """

    def spoil(part: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return tuple(torch.full_like(one, torch.nan) if i in form.lacking else one for i, one in enumerate(output))

    try:
        with blame(StageError, name), torch.no_grad(), slow_path():
            with without(module, {name: form.rest}):
                call(module, example)
            if not form.lacking:
                return True
            with module.get_submodule(name).register_forward_hook(spoil):
                after = call(module, example)
    except StageError:
        return False
    return all(torch.equal(values, after[key]) for key, values in answers.items())


def _is_within(name: str, other: str) -> bool:
    return name.startswith(f"{other}.")


def _in_rows(module: nn.Module) -> Iterator[str]:
    """Names of the parts of rows that are made of several layers."""
    for name, part in module.named_modules():
        owner = module.get_submodule(name.rpartition(".")[0]) if name else None
        is_block = isinstance(owner, nn.Sequential | nn.ModuleList) and any(True for _ in part.children())
        if is_block and not isinstance(part, nn.Sequential | nn.ModuleList):
            yield name


class _Form(NamedTuple):
    """The `rest` of a bypass, and the places of what the block gives and a bypass does not: None stands for it."""

    rest: list[str | int | None] | None
    lacking: tuple[int, ...] = ()


def _form(args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> _Form | None:
    """How a bypass gives what a block gives, None where it cannot."""
    first = args[0] if args else next(iter(kwargs.values()), None)
    is_tuple = isinstance(output, tuple) and len(output) > 0
    values = output[0] if is_tuple else output
    if not isinstance(first, Tensor) or not isinstance(values, Tensor):
        return None
    if (values.shape, values.dtype) != (first.shape, first.dtype):
        return None
    if not is_tuple:
        return _Form(None)
    places: list[tuple[str | int, Any]] = [*enumerate(args), *kwargs.items()]
    keys = [next((key for key, other in places if other is value and key != 0), None) for value in output[1:]]
    lacking = [i for i, key in enumerate(keys, 1) if key is None and output[i] is not None]
    if not all(isinstance(output[i], Tensor) and output[i].is_floating_point() for i in lacking):
        return None
    rest: list[str | int | None] = [None if output[i] is None else key for i, key in enumerate(keys, 1)]
    return _Form(rest, tuple(lacking))
