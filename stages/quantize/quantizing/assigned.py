"""What a search has the nodes of a graph do, in place of what a user says of them."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol

from pipeline.context import Context
from pipeline.model import OnnxModel


class Assigned(NamedTuple):
    """Nodes that are not quantized or have widths of their own, by the user's names for them.

    Other nodes get what the settings say. That one cannot be quantized is no error, as it is where a user names it.

    Args:
        spared: they stay as they are.
        halves: of these the weights are stored in fp16 where that holds them.
        widths: of nodes that are quantized.
    """

    spared: Collection[str] = ()
    halves: Collection[str] = ()
    widths: Mapping[str, Any] = {}

    @property
    def left(self) -> tuple[str, ...]:
        """All that are not quantized."""
        return (*self.spared, *self.halves)


class Trial(Protocol):
    """What a stage makes of a model where a search says what its nodes do."""

    def __call__(self, inner: Context, assigned: Assigned) -> OnnxModel:
        """The quantized file, which lies in the folder of the context."""
