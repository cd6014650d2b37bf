"""What is inside a module: lists of repeated layers, a model of transformers, what wrappers are around."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError

WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
"""By the name of the class, for loading torch's compiler takes its time: where it keeps what it wraps."""


def layer_lists(module: nn.Module) -> dict[str, list[str]]:
    """The full names of the layers of every list of repeated layers, by the list's name, in the module's order.

    Such a list is an nn.ModuleList or nn.Sequential of layers of one class with at least two weights each (a block,
    not a convolution with its norm). Of lists in each other the outer one counts, unless its items are stages, no two
    alike: then the lists in them do.
    """
    lists = {name: part for name, part in module.named_modules() if _is_list(part)}
    chosen: dict[str, list[str]] = {}
    for name, part in lists.items():
        if any(name.startswith(_inside(outer)) for outer in chosen):
            continue
        has_inner = any(other.startswith(_inside(name)) for other in lists if other != name)
        if _repeats(part) or not has_inner:
            chosen[name] = [_inside(name) + key for key, _ in part.named_children()]
    return chosen


def transformers_model(module: nn.Module) -> nn.Module | None:
    """The outermost model of transformers in a module, or None; told by name: importing the library takes seconds."""
    return next((part for part in module.modules() if any(map(_is_model_class, type(part).__mro__))), None)


def unwrapped(module: nn.Module) -> nn.Module:
    """The module without what torch.compile and DataParallel have put around it; from its parts it goes in place."""
    module = _within(module)
    for part in module.modules():
        vars(part).pop("_compiled_call_impl", None)  # what Module.compile has put in the place of the call
        for name, child in part.named_children():
            if type(child).__name__ in WRAPPERS:
                setattr(part, name, unwrapped(child))
    return module


def copied(module: nn.Module) -> nn.Module:
    """A copy of a module without its wrappers, itself left as it is, also where `make_copyable` would be needed."""
    module = _within(module)
    return unwrapped(copy.deepcopy(module, {id(value): value.detach().clone() for _, _, value in _computed(module)}))


def make_copyable(module: nn.Module) -> None:
    """Detach weights that each call computes from others, as of the old weight_norm; copy.deepcopy wants that."""
    for part, name, value in [*_computed(module)]:
        vars(part)[name] = value.detach()


def refuse_scripted(module: nn.Module, where: str, name: str = "") -> None:
    """Raise ConfigError where a module, or the part of this name, is TorchScript."""
    if isinstance(module, torch.jit.ScriptModule):
        subject = f"`{name}`" if name else "it"
        fix = "Give the module that torch.jit.script or torch.jit.trace was given"
        raise ConfigError(f"{subject} is TorchScript, which cannot be exported", where=where, fix=fix)


def aside(module: nn.Module) -> list[nn.Parameter]:
    """Parameters of parts that call themselves `is_aside`: steps and such, which say how others are stored."""
    return [p for part in module.modules() if getattr(part, "is_aside", False) for p in part.parameters()]


def is_encoder_decoder(part: nn.Module) -> bool:
    """Whether it is a model of transformers with a decoder of its own that generates."""
    return bool(getattr(getattr(part, "config", None), "is_encoder_decoder", False))


def _within(module: nn.Module) -> nn.Module:
    """What the wrappers around a module hold; of its parts they stay."""
    inner = getattr(module, WRAPPERS.get(type(module).__name__, ""), None)
    return _within(inner) if isinstance(inner, nn.Module) else module


def _computed(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Each part, name and value of what was computed from weights and is kept beside them."""
    for part in module.modules():
        yield from ((part, n, v) for n, v in vars(part).items() if isinstance(v, Tensor) and not v.is_leaf)


def _is_model_class(kind: type) -> bool:
    return kind.__name__ == "PreTrainedModel" and kind.__module__.startswith("transformers.")


def _is_list(part: nn.Module) -> bool:
    if not isinstance(part, nn.ModuleList | nn.Sequential):
        return False
    layers = [layer for _, layer in part.named_children()]
    # A layer that stands in it twice is shared, not repeated.
    return 0 < len(layers) == len(part) and len({type(layer) for layer in layers}) == 1 and all(map(_is_block, layers))


def _is_block(layer: nn.Module) -> bool:
    return sum(parameter.ndim > 1 for parameter in layer.parameters()) > 1


def _repeats(part: nn.Module) -> bool:
    """Whether two of its layers have the same tensors."""
    alike = [tuple((key, tensor.shape) for key, tensor in layer.named_parameters()) for layer in part.children()]
    return len(set(alike)) < len(alike)


def _inside(name: str) -> str:
    return f"{name}." if name else ""
