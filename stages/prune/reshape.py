"""The edit behind a pruned model: resulting shapes and sizes by submodule, not the steps that led there."""

from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from pipeline.errors import StageError

USE = "stages.prune.reshape:reshape"


def difference(before: nn.Module, after: nn.Module) -> dict[str, JsonValue]:
    """What `reshape` needs to turn the structure of `before` into that of `after`; empty where they are equal.

    Args:
        before, after: modules with the same submodules, parameters and buffers by name.

    Returns:
        submodule name -> {"shapes": {parameter or buffer: [int, ...]}, "sizes": {attribute: int or [int, ...]}},
        where sizes are plain integer attributes such as out_channels, groups, normalized_shape; "" is the module.

    Raises:
        StageError: the two do not have the same submodules.
    """
    old, new = dict(before.named_modules()), dict(after.named_modules())
    if old.keys() != new.keys():
        problem = f"submodules {sorted(old.keys() ^ new.keys())} are in one module only"
        raise StageError(problem, expected="the same names")
    layers: dict[str, JsonValue] = {}
    for name in old:
        shapes = _changed(_shapes(old[name]), _shapes(new[name]))
        sizes = _changed(_sizes(old[name]), _sizes(new[name]))
        if shapes or sizes:
            layers[name] = {"shapes": shapes, "sizes": sizes}
    return layers


def reshape(module: nn.Module, layers: dict[str, Any]) -> nn.Module:
    """The module with the shapes and sizes of a `difference`.

    Tensors whose shape changes become zero; tied ones stay tied.

    Args:
        module: the structure that `difference` called `before`; it is changed in place.
        layers: what `difference` gave.

    Raises:
        StageError: a name is not in the module, or tensors that are tied would get different shapes.
    """
    parts = dict(module.named_modules())
    new_tensors: dict[int, Tensor] = {}
    replaced = []  # kept alive, so that no id is used twice
    for name, change in layers.items():
        if name not in parts:
            raise StageError(f"the module has no submodule `{name}`", expected="the module that was pruned")
        part = parts[name]
        for attribute, size in change["sizes"].items():
            setattr(part, attribute, tuple(size) if isinstance(size, list) else size)
        for key, shape in change["shapes"].items():
            old = _own(part).get(key)
            if old is None:
                raise StageError(f"`{name}` has no tensor `{key}`", expected="the module that was pruned")
            replaced.append(old)
            new = new_tensors.setdefault(id(old), _zeros(old, shape))
            if list(new.shape) != shape:
                raise StageError(f"`{name}.{key}` is tied to a tensor of shape {list(new.shape)}", expected=str(shape))
            setattr(part, key, new)
    return module


def _own(part: nn.Module) -> dict[str, Tensor]:
    return dict(part.named_parameters(recurse=False)) | dict(part.named_buffers(recurse=False))


def _zeros(old: Tensor, shape: list[int]) -> Tensor:
    new = torch.zeros(shape, dtype=old.dtype, device=old.device)
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


def _shapes(part: nn.Module) -> dict[str, JsonValue]:
    return {key: list(value.shape) for key, value in _own(part).items()}


def _sizes(part: nn.Module) -> dict[str, JsonValue]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in vars(part).items()
        if not key.startswith("_") and (_is_size(value) or (isinstance(value, tuple) and all(map(_is_size, value))))
    }


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _changed(before: dict[str, JsonValue], after: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: value for key, value in after.items() if before.get(key) != value}
