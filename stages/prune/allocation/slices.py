"""What of a layer's weights belongs to each of its channels."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from stages.prune.coupling.parts import LAYERS, Place

NORMS = (_BatchNorm, nn.LayerNorm)


def weighted(module: nn.Module, place: Place) -> nn.Parameter | None:
    """The weight of the layer at a place; None where it has none that tells how much a channel matters."""
    if place.side not in ("out", "in"):
        return None
    layer = module.get_submodule(place.name)
    return dict(layer.named_parameters()).get("weight") if isinstance(layer, (*LAYERS, *NORMS)) else None


def slices(layer: nn.Module, place: Place, values: Tensor) -> Tensor:
    """(channels, numbers) of a weight, or of what has its shape: what gives each channel, or what reads it.

    Args:
        layer: at the place.
        place: outputs or inputs of the layer.
        values: of the shape of its weight.
    """
    if isinstance(
        layer, _ConvNd
    ):  # (groups, outputs, inputs, kernel) or, transposed, (groups, inputs, outputs, kernel)
        parts = values.reshape(layer.groups, len(values) // layer.groups, *values.shape[1:])
        is_first = (place.side == "out") != isinstance(layer, _ConvTransposeNd)
        parts = parts if is_first else parts.transpose(1, 2)
        return parts.flatten(0, 1).flatten(1)
    if isinstance(layer, nn.Linear):
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
