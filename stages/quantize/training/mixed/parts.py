"""The layers of a network as far as they can have widths of their own."""

from dataclasses import dataclass

from torch import nn

from stages.quantize.training.forward.calls import layer_of
from stages.quantize.training.forward.placement import Plan


@dataclass(frozen=True)
class Part:
    """A layer and its weights.

    Args:
        name: as `layers` has it.
        weights: names of its parameters.
        operator: what reads the first of them.
        sizes: numbers in each of them.
    """

    name: str
    weights: tuple[str, ...]
    operator: str
    sizes: tuple[int, ...]


def parts_of(module: nn.Module, plan: Plan) -> list[Part]:
    """The layers of a module with weights that a plan quantizes, in the order in which they are called."""
    readers = {name: call.name for call in reversed(plan.calls) for name in call.weights}
    named: dict[str, list[str]] = {}
    for weight in plan.axes:
        named.setdefault(layer_of(weight), []).append(weight)
    sizes = {weight: module.get_parameter(weight).numel() for weight in plan.axes}
    return [Part(name, (*ws,), readers[ws[0]], tuple(map(sizes.__getitem__, ws))) for name, ws in named.items()]
