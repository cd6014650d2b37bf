"""What layers inside a module give, seen without changing the module."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from pipeline.base.use import nearest
from pipeline.errors import ConfigError, StageError
from pipeline.forms.tracing import always_slow

Read = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]
"""(layer, its arguments by position, by name, what it gave) -> what to keep of it."""


def output_of(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> Tensor:
    """A layer's output; of several, the first tensor."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else ()
    tensor = next((value for value in values if isinstance(value, Tensor)), None)
    if tensor is None:
        raise StageError(f"the layer {type(layer).__name__} gave {type(output).__name__}", expected="a tensor")
    return tensor


@dataclass(frozen=True)
class Hook:
    """A layer by its name, "" for the whole module, and what is read there."""

    layer: str
    read: Read = output_of


class Hooks:
    """Reads the same places at each forward. Of a layer that is used several times, the last use counts."""

    def __init__(self, module: nn.Module, hooks: Sequence[Hook]) -> None:
        self.values: list[Any] = [None] * len(hooks)
        self.handles = [
            module.get_submodule(hook.layer).register_forward_hook(partial(self._store, i, hook.read), with_kwargs=True)
            for i, hook in enumerate(hooks)
        ]
        if hooks:
            # Without gradients nn.TransformerEncoder takes a path that calls none of its layers.
            self.handles += always_slow(module)

    def __len__(self) -> int:
        return len(self.values)

    def take(self) -> tuple[Any, ...]:
        """What was read in the last forward. Raises StageError where a layer was not used in it."""
        values, self.values = self.values, [None] * len(self.values)
        if any(value is None for value in values):
            raise StageError("a layer was not used in the forward", expected="layers that every forward uses")
        return tuple(values)

    def remove(self) -> None:
        """Leave the module as it was."""
        for handle in self.handles:
            handle.remove()

    def _store(self, i: int, read: Read, layer: nn.Module, args: Any, named: Any, output: Any) -> None:
        self.values[i] = read(layer, args, named, output)


def require_layer(module: nn.Module, name: str, whose: str) -> None:
    """Raise ConfigError, with the nearest names, where the module has no such layer."""
    names = [layer for layer, _ in module.named_modules() if layer]
    if not names:
        raise ConfigError(f"the {whose} has no layers to look at", expected="a torch model, not an ONNX file")
    if name not in names:
        raise ConfigError(f"the {whose} has no layer `{name}`{nearest(name, names)}")
