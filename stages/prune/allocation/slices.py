"""What of a layer's weights belongs to each of its channels."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from stages.prune.coupling.cells import Cell, State
from stages.prune.coupling.parts import LAYERS, Part, Place

NORMS = (_BatchNorm, nn.LayerNorm)


def weighted(part: Part, place: Place) -> list[nn.Parameter]:
    """The weights of the layer at a place; none where nothing tells how much a channel matters."""
    if isinstance(part, Cell) and place.side == "out":
        return [part.weight("weight_ih"), part.weight("weight_hh")]
    if isinstance(part, Cell | State):
        return [part.weight("weight_ih" if isinstance(part, Cell) else "weight_hh")]
    weight = dict(part.named_parameters()).get("weight") if isinstance(part, (*LAYERS, *NORMS)) else None
    return [] if weight is None else [weight]


def slices(part: Part, place: Place, values: Tensor) -> Tensor:
    """(channels, numbers) of a weight, or of what has its shape: what gives each channel, or what reads it.

    Args:
        part: at the place.
        place: outputs or inputs of it.
        values: of the shape of its weight.
    """
    if isinstance(part, _ConvNd):  # (groups, outputs, inputs, kernel) or, transposed, (groups, inputs, outputs, kernel)
        parts = values.reshape(part.groups, len(values) // part.groups, *values.shape[1:])
        is_first = (place.side == "out") != isinstance(part, _ConvTransposeNd)
        parts = parts if is_first else parts.transpose(1, 2)
        return parts.flatten(0, 1).flatten(1)
    if isinstance(part, Cell) and place.side == "out":
        return part.by_unit(values)
    if isinstance(part, nn.Linear | Cell | State):
        return values if place.side == "out" else values.mT
    return values[:, None]


def by_label(numbers: Tensor, labels: Tensor, size: int) -> Tensor:
    """(size,) the sums over the channels of each label, without those of none.

    Args:
        numbers: (channels,).
        labels: (channels,) 0 to size - 1, or less than 0 for none.
        size: how many labels there are.
    """
    is_labelled = labels >= 0
    return numbers.new_zeros(size).scatter_add(0, labels[is_labelled], numbers[is_labelled])
