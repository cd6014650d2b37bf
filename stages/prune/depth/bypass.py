"""The edit that leaves blocks out: in their place stands what hands on what came in."""

from typing import Any

from torch import nn

from pipeline.errors import StageError

USE = "stages.prune.depth.bypass:bypassed"


class Bypass(nn.Module):
    """Gives what comes in first, in the form in which the block gave its values.

    Args:
        rest: None where the block gives a tensor alone. Else it gives a tuple, of which these are the others: the name
            or position of an argument that is handed on, or None for None.
    """

    def __init__(self, rest: list[str | int | None] | None = None) -> None:
        super().__init__()
        self.rest = rest

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The first argument, with the others that the block would have handed on."""
        first = args[0] if args else next(iter(kwargs.values()))
        if self.rest is None:
            return first
        return (first, *(self._handed_on(key, args, kwargs) for key in self.rest))

    @staticmethod
    def _handed_on(key: str | int | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if key is None:
            return None
        return args[key] if isinstance(key, int) else kwargs[key]


def bypassed(module: nn.Module, blocks: dict[str, Any]) -> nn.Module:
    """The module, changed in place, with a bypass in place of each block.

    Args:
        module: with these submodules.
        blocks: name -> the `rest` of its bypass.

    Raises:
        StageError: a block is not there.
    """
    names = {name for name, _ in module.named_modules()}
    for name, rest in blocks.items():
        if name not in names:
            raise StageError(f"the module has no submodule `{name}`", expected="the module whose blocks were left out")
        owner, _, key = name.rpartition(".")
        setattr(module.get_submodule(owner), key, Bypass(rest))
    return module
