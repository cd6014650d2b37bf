"""Which blocks of a network can be left out: those that give values of the shape that comes in."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.errors import StageError, blame
from pipeline.forms.tracing import slow_path
from pipeline.model import call
from stages.prune.depth.bypass import Bypass


class Found(NamedTuple):
    """The blocks of a module.

    Args:
        blocks: name -> the `rest` of the bypass that can take its place, in the order in which they run.
        others: names of those beside them that cannot be left out, as those that halve an image.
    """

    blocks: dict[str, list[str | int | None] | None]
    others: list[str]


def find(module: nn.Module, example: Inputs) -> Found:
    """Blocks are the parts of an nn.Sequential or nn.ModuleList that are no single layers; of nested ones the outer.

    Args:
        module: in evaluation mode; it is as it was afterwards.
        example: a batch of its inputs.
    """
    names = [*_in_rows(module)]
    forms: dict[str, Any] = {}
    order: list[str] = []

    def see(name: str, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        order.append(name)
        forms[name] = None if forms.get(name, ()) is None else _form(args, kwargs, output)

    with ExitStack() as hooks, torch.no_grad(), slow_path():
        for name in names:
            part = module.get_submodule(name)
            hooks.enter_context(part.register_forward_hook(partial(see, name), with_kwargs=True))
        call(module, example)
    free = [name for name in dict.fromkeys(order) if forms[name] and _runs_without(module, example, name, forms[name])]
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


def _runs_without(module: nn.Module, example: Inputs, name: str, form: "_Form") -> bool:
    """Whether the module runs with a bypass in place of a block, of which others may want more than what it gives."""
    try:
        with blame(StageError, name), torch.no_grad(), slow_path(), without(module, {name: form.rest}):
            call(module, example)
    except StageError:
        return False
    return True


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
    rest: list[str | int | None] | None


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
    rest: list[str | int | None] = []
    places: list[tuple[str | int, Any]] = [*enumerate(args), *kwargs.items()]
    for value in output[1:]:
        key = next((key for key, other in places if other is value and key != 0), None)
        if value is not None and key is None:
            return None
        rest.append(None if value is None else key)
    return _Form(rest)
