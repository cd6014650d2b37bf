"""Batch norms that become part of the layers before them, as they do where a network is deployed."""

from collections import Counter
from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from pipeline.base.batches import Inputs
from pipeline.errors import StageError
from pipeline.forms.text.remapped import split
from stages.quantize.training.forward.calls import PARAMETERS, layer_of
from stages.quantize.training.forward.records import record

USE = "stages.quantize.training.folding:fold"


def foldable(module: nn.Module, inputs: Inputs) -> list[tuple[str, str]]:
    """Names of layers and of the batch norms that alone read what these give, seen by values in a forward.

    Args:
        module: in evaluation mode; it is not changed.
        inputs: a batch that it takes.
    """
    recording = record(module, inputs)
    uses = Counter(weight for one in recording.records for weight in set(one.weights()))
    pairs = []
    for layer in recording.records:
        reader = recording.only_reader(layer.gives[0])
        if layer.name not in PARAMETERS or reader is None or reader.name != "batch_norm":
            continue
        names = [layer_of(name) for name in (*layer.weights()[:1], *reader.weights()[:1])]
        if (
            len(names) == 2
            and all(isinstance(argument, str | None) for argument in layer.arguments[1:3])  # computed by nothing
            and _fits(module, *names)
            and all(uses[w] == 1 for w in (*layer.weights(), *reader.weights()))
        ):
            pairs.append((names[0], names[1]))
    return pairs


def fold(module: nn.Module, pairs: Sequence[Sequence[str]]) -> nn.Module:
    """The module with batch norms in the weights and biases of the layers before them, and nn.Identity in their place.

    Args:
        module: it is changed.
        pairs: names of a layer and of its batch norm.

    Raises:
        StageError: there are no such two.
    """
    core = split(module)[0]
    for layer_name, norm_name in pairs:
        if not _fits(core, layer_name, norm_name):
            problem = f"`{norm_name}` is no batch norm behind `{layer_name}`"
            raise StageError(problem, expected="the module that was quantized")
        layer, norm = core.get_submodule(layer_name), core.get_submodule(norm_name)
        statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        if isinstance(layer, nn.Linear):
            weight, bias = fuse_linear_bn_weights(layer.weight, layer.bias, *statistics)  # type: ignore[arg-type]
        else:
            transposed = isinstance(layer, _ConvTransposeNd)
            weight, bias = fuse_conv_bn_weights(layer.weight, layer.bias, *statistics, transposed)  # type: ignore[arg-type]
        layer.weight, layer.bias = weight, bias.requires_grad_(weight.requires_grad)  # a layer without one has it now
        core.set_submodule(norm_name, nn.Identity())
    return module


def _fits(module: nn.Module, layer: str, norm: str) -> bool:
    parts = dict(module.named_modules())
    is_layer = isinstance(parts.get(layer), _ConvNd | nn.Linear)
    if isinstance(parts.get(layer), _ConvTransposeNd) and parts[layer].groups != 1:  # torch's function mixes the groups
        return False
    return is_layer and isinstance(parts.get(norm), _BatchNorm) and parts[norm].running_mean is not None
