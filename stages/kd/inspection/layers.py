"""Lists of repeated layers in a module: which layers of them can go, and the edit that drops them."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from itertools import accumulate
from typing import Any

from torch import Size, Tensor, nn

from pipeline.base.use import nearest
from pipeline.errors import ConfigError
from pipeline.forms.layers import layer_lists
from pipeline.model import TorchModel

USE = "stages.kd.inspection.layers:keep_layers"

COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
ENCODER_COUNTS = ("encoder_layers", "num_encoder_layers")
DECODER_COUNTS = ("decoder_layers", "num_decoder_layers")
"""Where transformers' configs, and modules such as nn.TransformerEncoder, keep the number of their layers."""

PER_LAYER = ("layer_types", "attention_layers")
POSITIONS = ("layer_idx", "layer_id", "layer_index")
"""Where a layer keeps its own position, which is its place in the cache of a generation."""


def kept_layers(model: TorchModel, layers: int | Mapping[str, int]) -> dict[str, list[int]]:
    """The positions that stay in each list from which layers are dropped, evenly spaced: i * n // N for N of n.

    A layer that gives another shape than it is given cannot go, and no first layer can: it may adapt shapes, or own
    what the others share, as T5's position bias.

    Args:
        model: whose layers; it is run on its example to see the shapes.
        layers: how many stay, 1 or more: in every list (as many as must, where that is more), or by list.

    Raises:
        ConfigError: no list has the name, it has fewer layers, more of its layers must stay, or nothing would go.

    Reference:
        Sanh, Debut, Chaumond and Wolf: DistilBERT, 2019, 1910.01108, section 2 (every second layer of the teacher).
    """
    lists = layer_lists(model.module)
    counts = dict.fromkeys(lists, layers) if isinstance(layers, int) else _checked(layers, lists)
    shorter = {name: lists[name] for name, count in counts.items() if count < len(lists[name])}
    positions: dict[str, list[int]] = {}
    for name, needed in _needed(model, shorter).items():
        if len(needed) > counts[name] and not isinstance(layers, int):
            problem = f"`{name}` cannot keep {counts[name]} layers: those at {sorted(needed)} must stay, "
            problem += "for they change the shape of what they are given or are the first"
            raise ConfigError(problem, where="layers", expected=f"{len(needed)} or more")
        if len(needed) < len(lists[name]):
            positions[name] = evenly(len(lists[name]), max(counts[name], len(needed)), needed)
    if not positions:
        listing = ", ".join(f"`{name}` with {len(names)}" for name, names in lists.items()) or "none"
        problem = "there is nothing to shrink"
        raise ConfigError(problem, where="layers", expected=f"fewer layers than a list has; lists: {listing}")
    return positions


def evenly(length: int, count: int, needed: Iterable[int] = ()) -> list[int]:
    """`count` of the positions below `length`, i * length // count, or where that misses a needed one those and the
    others evenly."""
    even = spread(length, count)
    fixed = set(needed)
    if fixed <= set(even):
        return even
    free = [i for i in range(length) if i not in fixed]
    return sorted(fixed | {free[i] for i in spread(len(free), count - len(fixed))})


def spread(length: int, count: int) -> list[int]:
    """The positions i * length // count of the `count` layers, 1 to `length`, that stand for `length`."""
    return [i * length // count for i in range(count)]


def keep_layers(module: nn.Module, lists: dict[str, list[int]]) -> nn.Module:
    """The module with only these positions of its lists of layers; counts, positions and configs follow.

    Args:
        module: it is changed in place.
        lists: list name -> positions that stay, ascending.

    Raises:
        ConfigError: there is no such list, or it is too short.
    """
    for name, positions in lists.items():
        parts = dict(module.named_modules())
        layer_list = parts.get(name)
        if not isinstance(layer_list, nn.ModuleList | nn.Sequential) or max(positions) >= len(layer_list):
            raise ConfigError(f"the module has no list `{name}` with {max(positions) + 1} layers")
        count = len(layer_list)
        for i in sorted(set(range(count)) - set(positions), reverse=True):
            del layer_list[i]
        for new, old in enumerate(positions):
            for part in layer_list[new].modules():
                _replace(part, POSITIONS, old, new)
        path = [parts[above] for above in _above(name) if above in parts]
        _replace(path[-1], COUNTS, count, len(positions))
        for config in {id(part.config): part.config for part in path if hasattr(part, "config")}.values():
            _follow(config, "decoder" in name.split("."), count, positions)
    return module


def _checked(layers: Mapping[str, int], lists: dict[str, list[str]]) -> Mapping[str, int]:
    """The same, where there are such lists with so many layers."""
    for name, count in layers.items():
        if name not in lists:
            raise ConfigError(f"there is no list of layers `{name}`{nearest(name, list(lists))}", where="layers")
        if count > len(lists[name]):
            problem = f"`{name}` has {len(lists[name])} layers"
            raise ConfigError(problem, where="layers", expected=f"at least {count} to keep {count}")
    return layers


def _follow(config: Any, is_decoder: bool, count: int, positions: list[int]) -> None:
    """Give a config above a list the list's new length; one config can be of an encoder and a decoder at once."""
    # An encoder's and decoder's own general counts are the encoder's; where each has a config, they are its own.
    shared = getattr(config, "is_encoder_decoder", False) and not getattr(config, "is_decoder", False)
    _replace(config, DECODER_COUNTS if is_decoder else ENCODER_COUNTS, count, len(positions))
    if not (shared and is_decoder):
        _replace(config, COUNTS, count, len(positions))
    if shared and hasattr(config, "num_decoder_layers"):
        # T5 has no such key, and without it transformers sizes the decoder's cache by the encoder's layers.
        config.decoder_layers = config.num_decoder_layers
    for key in PER_LAYER:
        value = getattr(config, "__dict__", {}).get(key)
        if isinstance(value, list) and len(value) == count:
            setattr(config, key, [value[i] for i in positions])


def _replace(owner: Any, keys: Iterable[str], old: int, new: int) -> None:
    """Set those of the attributes that hold the old number."""
    for key in keys:
        value = getattr(owner, key, None)
        if isinstance(value, int) and not isinstance(value, bool) and value == old:
            setattr(owner, key, new)


def _needed(model: TorchModel, lists: dict[str, list[str]]) -> dict[str, set[int]]:
    """Positions that must stay: the first, and what does not give a tensor of a shape that it is given."""
    parts, kept_shape = dict(model.module.named_modules()), set[int]()

    def watch(part: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        output_shapes = _shapes(output)[:1]
        if output_shapes and output_shapes[0] in _shapes([*args, *kwargs.values()]):
            kept_shape.add(id(part))

    with ExitStack() as hooks:
        for name in (name for names in lists.values() for name in names):
            hooks.enter_context(parts[name].register_forward_hook(watch, with_kwargs=True))
        model.predict(model.example)
    return {
        key: {i for i, name in enumerate(names) if i == 0 or id(parts[name]) not in kept_shape}
        for key, names in lists.items()
    }


def _shapes(value: Any) -> list[Size]:
    """Shapes of a tensor, or of those in a sequence or a mapping."""
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
    return [item.shape for item in values if isinstance(item, Tensor)]


def _above(name: str) -> list[str]:
    """The names of what a submodule is in, from the root down: "a.b" is in "" and "a"; the root counts as in itself."""
    return ["", *accumulate(name.split(".")[:-1], "{}.{}".format)]
