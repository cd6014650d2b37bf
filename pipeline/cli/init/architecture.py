"""What a model is made of, as far as it decides which stages suit it."""

from collections import Counter
from collections.abc import Iterable
from statistics import median
from typing import Any, Literal

from torch import nn
from torch.nn.modules.conv import _ConvNd

from pipeline.forms.layers import is_encoder_decoder, layer_lists

Kind = Literal["convolutional", "transformer", "sequence", "feed-forward", "recurrent", "other"]

PROJECTIONS = 2  # of query, key and value; some attention has two of them in one matrix


def kind_of(module: nn.Module, inputs: Iterable[str] = ()) -> Kind:
    """Which stages suit it.

    Args:
        module: it is looked at, not run.
        inputs: the names of its inputs.
    """
    parts = list(module.modules())
    if "decoder_input_ids" in inputs or any(map(is_encoder_decoder, parts)):
        return "sequence"
    if any(map(_attends, parts)):
        return "transformer"
    if any(isinstance(part, nn.RNNBase | nn.RNNCellBase) for part in parts):
        return "recurrent"
    if any(isinstance(part, _ConvNd) for part in parts):
        return "convolutional"
    return "feed-forward" if sum(isinstance(part, nn.Linear) for part in parts) > 1 else "other"


def kind_of_operators(operators: Iterable[str]) -> Kind:
    """The same of an ONNX graph, from the operators of its nodes."""
    count = Counter(operators)
    attends = count["Softmax"] and count["MatMul"] >= 2 * PROJECTIONS
    if attends or count["Attention"] or count["MultiHeadAttention"]:
        return "transformer"
    if count["LSTM"] or count["GRU"] or count["RNN"]:
        return "recurrent"
    if count["Conv"]:
        return "convolutional"
    return "feed-forward" if count["Gemm"] + count["MatMul"] > 1 else "other"


def width_of(module: nn.Module) -> int:
    """The usual number of outputs of its layers; 0 where it has none."""
    parts: list[Any] = [part for part in module.modules() if isinstance(part, _ConvNd | nn.Linear)]
    widths = [part.out_channels if isinstance(part, _ConvNd) else part.out_features for part in parts[:-1]]
    return int(median(widths)) if widths else 0


def share_between(module: nn.Module) -> float:
    """Share of the weights of its layers that are in neither the first nor the last of them, from 0 to 1."""
    sizes = [part.weight.numel() for part in module.modules() if isinstance(part, _ConvNd | nn.Linear)]
    return sum(sizes[1:-1]) / sum(sizes) if sizes else 0.0


def depth_of(module: nn.Module) -> int:
    """Layers in its longest list of layers; 0 where there is no such list."""
    return max(map(len, layer_lists(module).values()), default=0)


def layers_of(module: nn.Module) -> int:
    """How many of its parts have parameters of their own."""
    return len({name.rpartition(".")[0] for name, _ in module.named_parameters()})


def share_in_layers(module: nn.Module) -> float:
    """Share of its parameters that are in its lists of layers, from 0 to 1."""
    return share_in(module, (module.get_submodule(name) for names in layer_lists(module).values() for name in names))


def share_in(module: nn.Module, parts: Iterable[nn.Module]) -> float:
    """Share of its parameters that are in some of its parts, from 0 to 1."""
    inside = {id(parameter): parameter.numel() for part in parts for parameter in part.parameters()}
    total = sum(parameter.numel() for parameter in module.parameters())
    return sum(inside.values()) / total if total else 0.0


def _attends(part: nn.Module) -> bool:
    if isinstance(part, nn.MultiheadAttention):
        return True
    linear = sum(type(inner).__name__ in ("Linear", "Conv1D") for inner in part.modules())
    convolves = any(isinstance(inner, _ConvNd) for inner in part.modules())  # as squeeze-and-excitation does
    return "attention" in type(part).__name__.lower() and linear >= PROJECTIONS and not convolves
