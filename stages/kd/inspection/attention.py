"""Blocks of self-attention in a module: which there are, and where to read their queries, keys and values.

What is read comes from the projections, so it is the same whichever implementation attends (eager, sdpa, flash).
"""

from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.base.use import nearest
from pipeline.errors import ConfigError, StageError
from pipeline.forms.layers import layer_lists
from stages.kd.inspection.hooks import Hook, Read, output_of

SEPARATE = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q_lin", "k_lin", "v_lin"), ("q", "k", "v"))
FUSED = ("c_attn", "qkv")
HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head", "nhead", "heads")
CROSS = ("encoder_attn", "crossattention", "encdecattention", "cross_attn", "cross_attention", "multihead_attn")
"""Names, in lower case, of the blocks in which a decoder attends to an encoder: no self-attention."""


@dataclass(frozen=True)
class Attention:
    """A block of self-attention.

    Args:
        name: of the block.
        layer: of the repeated layer that the block is in; the block itself where it is in none.
        heads: of the queries; keys and values of grouped queries are repeated to as many.
        width: heads times the width of a head.
        query, key, value: each reads (N, heads, L, width / heads), before any rotary position.
    """

    name: str
    layer: str
    heads: int
    width: int
    query: Hook
    key: Hook
    value: Hook


def stacks(module: nn.Module, whose: str) -> list[list[Attention]]:
    """The blocks of self-attention in the module's order, by the list of layers that they are in.

    A model has one stack, an encoder and a decoder have two. Blocks that are in no list of layers form one together.

    Args:
        module: any; its blocks have separate projections (`SEPARATE`), a fused one (`FUSED`: queries, keys and values
            one after the other), or are nn.MultiheadAttention.
        whose: "student" or "teacher", for errors.

    Raises:
        ConfigError: it has none, or a block does not say how many heads it has.
    """
    homes = {layer: name for name, layers in layer_lists(module).items() for layer in layers}
    blocks_by_list: dict[str | None, list[Attention]] = {}
    for name, block in module.named_modules():
        if any(part.lower() in CROSS for part in name.split(".")):
            continue
        layer = next((layer for layer in homes if f"{name}.".startswith(f"{layer}.")), None)
        if attention := _attention(name, layer or name, block):
            blocks_by_list.setdefault(homes[layer] if layer else None, []).append(attention)
    if not blocks_by_list:
        names = ", ".join("/".join(names) for names in SEPARATE)
        problem = f"no self-attention was found in the {whose}"
        expected = f"nn.MultiheadAttention, or layers named {names}, or {' or '.join(FUSED)} for all three"
        raise ConfigError(problem, expected=expected, fix="Use features on named layers instead")
    return list(blocks_by_list.values())


def attention_at(found: list[list[Attention]], place: int | str, whose: str) -> Attention:
    """The block at a position, from 0 over all stacks or from the end below it, or of a name: its own or its layer's.

    Raises:
        ConfigError: there is none; it has the nearest names.
    """
    blocks = list(chain.from_iterable(found))
    if isinstance(place, int):
        if not -len(blocks) <= place < len(blocks):
            raise ConfigError(f"the {whose} has no attention {place}", expected=f"0 to {len(blocks) - 1}")
        return blocks[place]
    for block in blocks:
        if place in (block.name, block.layer):
            return block
    names = list(dict.fromkeys(name for block in blocks for name in (block.layer, block.name)))
    raise ConfigError(f"the {whose} has no attention in `{place}`{nearest(place, names)}")


def input_of(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> Tensor:
    """The first tensor that a layer was given, of real numbers; a `Read`."""
    tensors = (x for x in (*args, *named.values()) if isinstance(x, Tensor) and x.is_floating_point())
    first = next(tensors, None)
    if first is None:
        raise StageError(f"the layer {type(layer).__name__} was given no tensor of real numbers")
    return first


def _attention(name: str, layer: str, block: nn.Module) -> Attention | None:
    """What to read at a block; None where it is no block of attention."""
    if isinstance(block, nn.MultiheadAttention):
        hooks = [Hook(name, partial(_projected, i)) for i in range(3)]
        return Attention(name, layer, block.num_heads, block.embed_dim, *hooks)
    inside = dict(block.named_children())
    for names in SEPARATE:
        if all(_is_projection(inside.get(part)) for part in names):
            return _of_parts(name, layer, block, [(part, 0, 1) for part in names])
    for part in FUSED:
        if _is_projection(inside.get(part)):
            return _of_parts(name, layer, block, [(part, i, 3) for i in range(3)])
    return None


def _of_parts(name: str, layer: str, block: nn.Module, places: list[tuple[str, int, int]]) -> Attention:
    """From the layers that project, each as its name in the block, the part of its output, and of how many."""
    heads, (query, _, parts) = _heads(name, block), places[0]
    width = _width(block.get_submodule(query)) // parts
    if width % heads:
        raise ConfigError(f"{heads} heads of `{name}` do not divide its width of {width}")
    prefix = f"{name}." if name else ""
    hooks = [Hook(f"{prefix}{part}", _part(heads, width, i, of)) for part, i, of in places]
    return Attention(name, layer, heads, width, *hooks)


def _is_projection(part: nn.Module | None) -> bool:
    return isinstance(getattr(part, "weight", None), Tensor) and _width(part) > 0


def _width(part: nn.Module | None) -> int:
    """Of a linear layer's output; transformers' Conv1D calls it nf. 0 for another layer."""
    return int(getattr(part, "out_features", getattr(part, "nf", 0)))


def _heads(name: str, block: nn.Module) -> int:
    for owner in (block, getattr(block, "config", None)):
        for key in HEADS:
            value = getattr(owner, key, None)
            if isinstance(value, int) and value > 0:
                return value
    problem = f"`{name}` has queries, keys and values, and does not say how many heads"
    raise ConfigError(problem, expected=f"an attribute {', '.join(HEADS[:-1])} or {HEADS[-1]}")


def _part(heads: int, width: int, i: int, of: int) -> Read:
    """Reads part `i` of `of` of what a layer projects."""
    return lambda *use: _apart(output_of(*use).chunk(of, dim=-1)[i], heads, width)


def _projected(i: int, block: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> Tensor:
    """Query, key or value (i = 0, 1, 2) of nn.MultiheadAttention, which has no layer of its own for it."""
    if not isinstance(block, nn.MultiheadAttention):
        raise StageError(f"it is {type(block).__name__}", expected="MultiheadAttention")
    layer_input = (dict(zip(("query", "key", "value"), args, strict=False)) | named)[("query", "key", "value")[i]]
    own = (block.q_proj_weight, block.k_proj_weight, block.v_proj_weight)
    weight = own[i] if block.in_proj_weight is None else block.in_proj_weight.chunk(3)[i]
    bias = None if block.in_proj_bias is None else block.in_proj_bias.chunk(3)[i]
    projection = F.linear(layer_input, weight, bias)
    return _apart(projection if block.batch_first else projection.transpose(0, 1), block.num_heads, block.embed_dim)


def _apart(values: Tensor, heads: int, width: int) -> Tensor:
    """(N, L, heads * d) -> (N, heads, L, d)."""
    if values.ndim != 3:
        problem = f"a projection of attention gave {tuple(values.shape)}"
        raise StageError(problem, expected="(examples, positions, width)")
    split = values.reshape(*values.shape[:2], -1, width // heads).transpose(1, 2)
    groups = heads // split.shape[1]
    return split if groups == 1 else split.repeat_interleave(groups, dim=1)
