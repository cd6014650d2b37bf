"""The edit that has the configuration of a transformers model say how many heads and how wide layers are left.

What is saved is the builder, the edits and the weights: the configuration is for what reads it, as exporters, caches of
keys and values, and people do.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from fractions import Fraction
from typing import Any

from torch import nn

from pipeline.base.formatting import few
from pipeline.errors import Note, StageError
from pipeline.forms.layers import transformers_model
from pipeline.model import TorchModel, same
from stages.prune.attention.plain import with_plain_attention
from stages.prune.coupling import engine
from stages.prune.coupling.coupled import Coupled
from stages.prune.coupling.telling import layers, with_plain_weights
from stages.prune.ignored import ignored

USE = "stages.prune.attention.config:configured"
HEADS = ("num_attention_heads", "num_key_value_heads", "decoder_attention_heads")
WIDTHS = ("hidden_size", "intermediate_size", "hidden_dim", "n_inner", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim")
"""What configurations call these; how else a kind calls them, its `attribute_map` knows."""


def heads_of(model: TorchModel, ignore: Sequence[str] = ()) -> list[Coupled]:
    """Heads of attention that can leave a model with plain layers, outside of names, or patterns of them."""
    names = ignored(model.module, ignore, StageError)
    groups = engine.couplings(model.module, model.example, names, with_heads=True).groups
    return [group for group in groups if group.width == "heads"]


def with_config(
    before: TorchModel, after: TorchModel, heads: Sequence[Coupled] | None, say: Callable[[str], None]
) -> TorchModel:
    """The pruned model with a configuration that has its numbers where all its blocks have the same ones, and notes.

    Args:
        before: the model that was cut.
        after: what it became.
        heads: of the one before; None to look for them where there is a configuration.
        say: takes a note of what the configuration says now, and of what it cannot say.
    """
    if not (configs := _configs(after.module)):
        return after
    before = plain(before)
    names = layers(heads_of(before) if heads is None else heads)
    sizes, differing = _sizes(configs, _pairs(before.module, after.module), names)
    if differing:
        say(Note(f"the configuration keeps {few(differing)}, for its blocks have different numbers now"))
    if not sizes:
        return after
    new = after.edited(USE, sizes={**sizes})
    outputs = new.predict(new.example)
    if not all(same(value, outputs[name]) for name, value in after.predict(after.example).items()):
        say(Note(f"the configuration keeps {few([*sizes])}, for the model gives other values with new numbers"))
        return after
    say(Note(f"the configuration says {few([f'{name}: {size}' for name, size in sizes.items()], len(sizes))} now"))
    return new


def plain(model: TorchModel) -> TorchModel:
    """The model with plain weights, and plain layers in its attention."""
    return with_plain_attention(with_plain_weights(model, _hush), _hush)


def _hush(text: str) -> None: ...


def configured(module: nn.Module, sizes: dict[str, int]) -> nn.Module:
    """The module, changed in place, with these numbers in all configurations of its transformers model."""
    for config in _configs(module):
        for name, size in sizes.items():
            setattr(config, name, size)
    return module


def _configs(module: nn.Module) -> list[Any]:
    """The different configurations of the transformers model in a module; encoder and decoder may have their own."""
    model = transformers_model(module)
    parts = [] if model is None else [vars(part).get("config") for part in model.modules()]
    return [*{id(config): config for config in parts if hasattr(config, "attribute_map")}.values()]


def _pairs(before: nn.Module, after: nn.Module) -> dict[str, tuple[int, int]]:
    """How wide each layer of a block, which has its number in its name, was and is."""
    old, new = engine.widths(before), engine.widths(after)
    return {name: (old[name], new[name]) for name in old if name in new and re.search(r"\.\d+\.", f".{name}.")}


def _sizes(
    configs: list[Any], pairs: dict[str, tuple[int, int]], heads: Collection[str]
) -> tuple[dict[str, int], list[str]]:
    """The new numbers by name, and the names of those that blocks do not agree in."""
    sizes: dict[str, int] = {}
    differing: list[str] = []
    for name in (*HEADS, *WIDTHS):
        number, *others = [_number(config, name) for config in configs] or [None]
        if not isinstance(number, int) or any(other != number for other in others):
            continue  # it has none, or several: as of a vision model's stages, or of two parts
        layers = heads if name in HEADS else [layer for layer in {*pairs} - {*heads} if pairs[layer][0] == number]
        shares = _shares(pairs, layers)
        if len(shares) > 1:
            differing.append(f"{name}: {number}")
        elif shares and shares != {1}:
            sizes[name] = int(number * shares.pop())
    if sizes.keys() & {"hidden_size", *HEADS} and (own := _head_size(configs)):
        sizes["head_dim"] = own
    return sizes, differing


def _shares(pairs: dict[str, tuple[int, int]], layers: Iterable[str]) -> set[Fraction]:
    """What is left of the widths of layers, and of those at the same place of other blocks."""
    places = {_place(layer) for layer in layers}
    return {Fraction(new, old) for layer, (old, new) in pairs.items() if _place(layer) in places}


def _place(layer: str) -> str:
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", layer)


def _number(config: Any, name: str) -> Any:
    number = getattr(config, name, None)
    if name == "n_inner" and number is None and hasattr(config, name):
        return 4 * config.hidden_size  # what None means to GPT-2
    return number


def _head_size(configs: list[Any]) -> int | None:
    """Channels of a head, where the configuration leaves them to be divided from numbers that change."""
    width, heads = (getattr(configs[0], name, None) for name in ("hidden_size", "num_attention_heads"))
    if getattr(configs[0], "head_dim", None) is not None or not isinstance(width, int) or not isinstance(heads, int):
        return None
    return width // heads
