"""What has channels in a module, where they lie, and taking some of them out; torch-pruning cuts most layers."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from pipeline.errors import StageError
from stages.prune.coupling.cells import Cell, State, cells

LAYERS = (_ConvNd, nn.Linear)  # what has channels to remove
SOURCES = (*LAYERS, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)  # what gives new values, whatever comes in
NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.PReLU)  # what has a parameter for each channel
Part = nn.Module | Cell | State


class Place(NamedTuple):
    """One side of a layer, an axis of a tensor that belongs to no layer, or the size of something.

    `name` is the submodule's, the cell's, the tensor's or the size's, which is an integer attribute of a submodule. The
    "out" of a recurrent layer as a whole is its hidden size.
    """

    name: str
    side: Literal["out", "in", "size"] | int

    @property
    def attribute(self) -> str:
        """Of a tensor or a size its name without that of the submodule."""
        return self.name.rpartition(".")[2]


def is_source(part: Part) -> bool:
    """Whether its output is made anew, other than that of a depthwise convolution, which keeps channels apart."""
    return isinstance(part, (*SOURCES, Cell)) and not is_depthwise(part)


def is_norm(part: Part) -> bool:
    """Whether it keeps channels apart as far as its parameters go; its statistics may be of several."""
    return isinstance(part, NORMS) and len(getattr(part, "normalized_shape", [1])) == 1


def is_depthwise(part: Part) -> bool:
    """Whether each channel that goes in is one that comes out."""
    return isinstance(part, _ConvNd) and 1 < part.groups == part.in_channels == part.out_channels


def axis_of(part: Part, values: Tensor) -> int:
    """The axis of the channels in what goes into a part or comes out of it."""
    if isinstance(part, _ConvNd):
        return -1 - len(part.kernel_size)
    if isinstance(part, nn.LayerNorm):  # some of ConvNeXt's take channels first
        is_first = getattr(part, "data_format", "") == "channels_first"
        return 1 if is_first or values.shape[-1] != part.normalized_shape[0] else -1
    return -1 if isinstance(part, nn.Linear | nn.Embedding | nn.RNNBase | Cell) else 1


def width(part: Part) -> int:
    """Channels that come out of a convolution, linear layer or embedding, or units of a recurrent layer or its cell."""
    sizes: tuple[tuple[Any, str], ...] = ((_ConvNd, "out_channels"), (nn.Linear, "out_features"))
    sizes += ((nn.RNNBase | Cell, "hidden_size"),)
    return int(getattr(part, next((name for kind, name in sizes if isinstance(part, kind)), "embedding_dim")))


def known(module: nn.Module) -> dict[str, Part]:
    """The submodules that have channels, by name, and the cells of recurrent layers; no submodule is in another one."""
    parts: dict[str, Part] = {}
    for name, part in module.named_modules():
        is_part = isinstance(part, SOURCES) or is_norm(part)
        if is_part and not any(name.startswith(f"{outer}.") for outer in parts):
            parts[name] = part
            parts |= cells(name, part) if isinstance(part, nn.RNNBase) else {}
    return parts


def layer_of(parts: Mapping[str, Part], name: str) -> str | None:
    """The name of the layer that has the channels of a part, as users know it: a cell's is the recurrent layer's."""
    part = parts[name]
    return part.owner if isinstance(part, Cell) else name if isinstance(part, (*LAYERS, nn.RNNBase)) else None


def loose(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module's state that belong to none of its known parts: gains, positions, weights of its own."""
    inside = tuple(f"{name}." for name in known(module))
    state = dict(module.state_dict(keep_vars=True)).items()
    return {key: value for key, value in state if value.is_floating_point() and not key.startswith(inside)}


def runs(part: Part) -> int:
    """In how many equal runs its channels lie, each of which must lose as many."""
    if isinstance(part, _ConvNd) and not is_depthwise(part):
        return part.groups
    return part.num_groups if isinstance(part, nn.GroupNorm) else 1


def remove(module: nn.Module, gone: Mapping[Place, list[int]]) -> None:
    """Take channels out of a module in place; tied parameters stay tied.

    Raises:
        StageError: parameters that are tied would lose different channels.
    """
    ties, parts = _ties(module), known(module)
    for place, channels in gone.items():
        owner, _, key = place.name.rpartition(".")
        if place.side == "size":
            part = module.get_submodule(owner)
            setattr(part, key, getattr(part, key) - len(channels))
        elif isinstance(place.side, int):
            _shorten(module.get_submodule(owner), key, place.side, channels)
        else:
            _narrow(parts[place.name], place, channels)
    for names in ties:
        _tie(module, names)


def shortened(module: nn.Module, place: Place, channels: list[int]) -> dict[str, tuple[int, ...]]:
    """By how much the axes of a module's parameters become shorter where channels leave a place; nothing is changed."""
    if place.side == "size":
        return {}
    if isinstance(place.side, int):
        axes = range(loose(module)[place.name].ndim)
        return {place.name: tuple(len(channels) if axis == place.side else 0 for axis in axes)}
    part = known(module)[place.name]
    if isinstance(part, nn.RNNBase):
        return {}
    if isinstance(part, Cell | State):
        shapes = {key: part.rnn.get_parameter(key).shape for key, _ in part.rnn.named_parameters()}
        lines = part.lines(place.side, channels).items()
        short = {key: [len(gone) * (at == axis) for at, _ in enumerate(shapes[key])] for key, (axis, gone) in lines}
        return {f"{part.owner}.{key}": tuple(by_axis) for key, by_axis in short.items()}
    layer = copy.deepcopy(part)
    before = {name: parameter.shape for name, parameter in layer.named_parameters()}
    _narrow(layer, place, channels)
    after = {name: parameter.shape for name, parameter in layer.named_parameters()}
    pairs = {name: zip(shape, after[name], strict=True) for name, shape in before.items()}
    return {f"{place.name}.{name}": tuple(old - new for old, new in ends) for name, ends in pairs.items()}


def _narrow(part: Part, place: Place, channels: list[int]) -> None:
    if isinstance(part, nn.RNNBase):
        part.hidden_size -= len(channels)
    elif isinstance(part, Cell | State):
        for key, (axis, lines) in part.lines(place.side, channels).items():
            _shorten(part.rnn, key, axis, lines)
        if place.side == "in" and isinstance(part, Cell) and part.end == "l0":
            part.rnn.input_size -= len(channels)
    elif isinstance(part, _ConvNd) and not is_depthwise(part):
        _narrow_convolution(part, place.side == "out", channels)
    else:
        cutter(part, place)(part, channels)


def _narrow_convolution(layer: _ConvNd, is_out: bool, channels: list[int]) -> None:
    """Take channels out of one side; of several groups each loses the same of its own."""
    axis = int(is_out == layer.transposed)  # the second axis is of one group, the first of all
    of_axis = [channel for channel in channels if axis == 0 or channel < layer.weight.shape[1]]
    _shorten(layer, "weight", axis, of_axis)
    if not is_out:
        layer.in_channels -= len(channels)
        return
    layer.out_channels -= len(channels)
    if layer.bias is not None:
        _shorten(layer, "bias", 0, channels)


def cutter(layer: nn.Module, place: Place) -> Callable[[nn.Module, list[int]], Any]:
    """The function of torch-pruning that cuts this side of a layer; not of convolutions that mix channels."""
    import torch_pruning as tp

    pruner = tp.function.PrunerBox[tp.ops.module2type(layer)]
    function: Callable[[nn.Module, list[int]], Any]
    function = pruner.prune_out_channels if place.side == "out" else pruner.prune_in_channels
    return function


def _shorten(owner: nn.Module, key: str, axis: int, channels: list[int]) -> None:
    old = getattr(owner, key)
    rest = torch.tensor(sorted(set(range(old.shape[axis])) - set(channels)), device=old.device)
    new = old.detach().index_select(axis, rest)
    setattr(owner, key, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)


def _ties(module: nn.Module) -> list[list[str]]:
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [tied for tied in names.values() if len(tied) > 1]


def _tie(module: nn.Module, names: list[str]) -> None:
    first = module.get_parameter(names[0])
    for name in names[1:]:
        if not torch.equal(module.get_parameter(name), first):
            raise StageError(f"the tied parameters {names} would lose different channels")
        owner, _, key = name.rpartition(".")
        setattr(module.get_submodule(owner), key, first)
