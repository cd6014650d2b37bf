"""The edit behind a factorized model: two or three plain layers in the place of one, by their ranks.

One rank r makes two layers: one to r channels, a convolution over the first axis of the kernel, and one from these over
the rest. Two ranks make three convolutions (Tucker-2): 1x1 to the first of them, the kernel to the second, and 1x1.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import StageError

USE = "stages.prune.ranks.factors:factorized"

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
Part = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
"""What can be factorized; of convolutions those of one group."""

NEUTRAL = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}
FUSED = (nn.TransformerEncoderLayer, nn.TransformerEncoder)


def factorized(module: nn.Module, layers: Mapping[str, Sequence[int]]) -> nn.Module:
    """The module with factors in the place of layers; their weights are zero, and biases stay what they are.

    Args:
        module: it is changed in place.
        layers: name of a linear layer or convolution -> its ranks.

    Raises:
        StageError: there is no such layer.
    """
    parts = dict(module.named_modules())
    for name, ranks in layers.items():
        part = parts.get(name)
        if not isinstance(part, Part):
            raise StageError(f"the module has no layer `{name}`", expected="the module that was factorized")
        replace(module, name, factors(part, ranks))
    return module


def replace(module: nn.Module, name: str, sequence: nn.Sequential) -> None:
    """Put factors in the place of a layer. Encoder layers of torch, which read its weight to run fused, do not then."""
    module.set_submodule(name, sequence.train(module.get_submodule(name).training))
    for part in module.modules():
        if isinstance(part, FUSED) and any(inner is sequence for inner in part.modules()):
            vars(part).update(activation_relu_or_gelu=0, use_nested_tensor=False)


def factors(part: Part, ranks: Sequence[int]) -> nn.Sequential:
    """Two or three layers for one, their weights zero, frozen where the layer's is; the last one has its bias."""
    layers: list[Any] = [*outline(part, ranks)]
    for layer in layers:
        weight = torch.zeros(layer.weight.shape, dtype=part.weight.dtype, device=part.weight.device)
        layer.weight = nn.Parameter(weight, part.weight.requires_grad)
    layers[-1].bias = part.bias
    return nn.Sequential(*layers)


def outline(part: Part, ranks: Sequence[int]) -> nn.Sequential:
    """The same on the device "meta", which holds no numbers, and without bias."""
    return nn.Sequential(*(_linear(part, *ranks) if isinstance(part, nn.Linear) else _convolutions(part, ranks)))


def fill(sequence: Iterable[nn.Module], weights: Sequence[Tensor]) -> None:
    """Write weights into factors, in their order and shapes."""
    with torch.no_grad():
        for layer, weight in zip(sequence, weights, strict=True):
            layer.get_parameter("weight").copy_(weight)


def matrix(weight: Tensor) -> Tensor:
    """A weight (out, in, *kernel) as the product of two factors: (out * rest of the kernel, in * its first axis)."""
    whole = weight[..., None] if weight.ndim == 2 else weight
    return whole.movedim((1, 2), (-2, -1)).reshape(-1, whole.shape[1] * whole.shape[2])


def halves(weight: Tensor, left: Tensor, right: Tensor) -> list[Tensor]:
    """The weights of two factors, whose product `left @ right` is of the form of `matrix`."""
    outputs, inputs, *kernel = weight.shape
    if not kernel:
        return [right, left]
    ones = [1] * (len(kernel) - 1)
    second = left.reshape(outputs, *kernel[1:], -1).movedim(-1, 1)
    return [right.reshape(-1, inputs, kernel[0], *ones), second.unsqueeze(2)]


def _linear(part: nn.Linear, rank: int) -> list[Any]:
    sizes = (part.in_features, rank), (rank, part.out_features)
    return [nn.Linear(*size, bias=False, device="meta") for size in sizes]


def _convolutions(part: Any, ranks: Sequence[int]) -> list[Any]:
    widths = [part.in_channels, *ranks, part.out_channels]
    in_first = [axis == 0 or size == 1 for axis, size in enumerate(part.kernel_size)]
    of_axes = [lambda axis: in_first[axis], lambda axis: not in_first[axis]]
    if len(ranks) == 2:
        of_axes = [lambda axis: False, lambda axis: True, lambda axis: False]
    kind = next(kind for kind in CONVOLUTIONS if isinstance(part, kind))
    rest = {"padding_mode": part.padding_mode, "bias": False, "device": "meta"}
    pairs = zip(widths, widths[1:], of_axes, strict=False)
    return [kind(inner, outer, **_geometry(part, axes), **rest) for inner, outer, axes in pairs]


def _geometry(part: Any, has: Callable[[int], bool]) -> dict[str, Any]:
    """What a factor takes of a convolution's geometry: of the axes that it has, and of others what changes nothing."""
    own: dict[str, Any] = {}
    for key, neutral in NEUTRAL.items():
        value = getattr(part, key)
        sizes = value if isinstance(value, tuple) else ()  # padding may be a word
        own[key] = tuple(size if has(axis) else neutral for axis, size in enumerate(sizes)) or value
    return own
