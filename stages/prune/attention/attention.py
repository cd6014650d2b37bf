"""Attention of plain linear layers, which does what `nn.MultiheadAttention` does and can have any number of heads."""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from stages.trainer.zeros import held, hold


class Attention(nn.Module):
    """What `nn.MultiheadAttention` gives, from a projection each of queries, keys and values.

    Args:
        widths: of queries, keys and values as they come in.
        num_heads: how many.
        head_dim: channels of each.
        bias: of the projections.
        dropout: share of the attention weights that training drops, 0 to 1.
        batch_first: whether inputs are (batch, length, width), else (length, batch, width).
    """

    _qkv_same_embed_dim = False  # what keeps nn.TransformerEncoderLayer from reading weights that are not there
    in_proj_bias = None

    def __init__(
        self, widths: tuple[int, int, int], num_heads: int, head_dim: int, bias: bool, dropout: float, batch_first: bool
    ) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.dropout, self.batch_first = num_heads, head_dim, dropout, batch_first
        inner = num_heads * head_dim
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, inner, bias) for width in widths)
        self.out_proj = nn.Linear(inner, widths[0], bias)

    @classmethod
    def of(cls, layer: nn.MultiheadAttention) -> Self:
        """The same attention, on the layer's device and in its type; what was frozen stays so, as do held zeros."""
        widths = (layer.embed_dim, layer.kdim, layer.vdim)
        has_bias = layer.in_proj_bias is not None
        with torch.device("meta"):
            new = cls(widths, layer.num_heads, layer.head_dim, has_bias, layer.dropout, layer.batch_first)
        weights = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
        parts = weights if layer.in_proj_weight is None else [*layer.in_proj_weight.detach().chunk(3)]
        biases = [*layer.in_proj_bias.detach().chunk(3)] if has_bias else [None] * 3
        first = layer.in_proj_weight if layer.in_proj_weight is not None else layer.q_proj_weight
        for name, weight, bias in zip(("q_proj", "k_proj", "v_proj"), parts, biases, strict=True):
            projection = new.get_submodule(name)
            projection.weight = nn.Parameter(weight.detach().clone(), first.requires_grad)
            if bias is not None:
                projection.bias = nn.Parameter(bias.clone(), layer.in_proj_bias.requires_grad)
        new.out_proj.weight, new.out_proj.bias = layer.out_proj.weight, layer.out_proj.bias
        hold(new, [name for name, _ in new.named_parameters() if held(layer).keys() & _sources(name)])
        return new.train(layer.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As of `nn.MultiheadAttention`; `is_causal` says of `attn_mask` what it is, and is not needed."""
        is_batched = query.dim() == 3
        axis = 0 if self.batch_first or not is_batched else 1
        parts = ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        q, k, v = (self._headed(projection(x if is_batched else x[None]), axis) for projection, x in parts)
        mask = self._mask(q, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            weights = nn.functional.dropout(weights, dropout)
            heads = weights @ v
        else:
            heads = scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out_proj(heads.transpose(1, 2).flatten(2)).transpose(0, axis)
        if weights is not None:
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if is_batched else weights[0]
        return (output if is_batched else output[0]), weights

    def _headed(self, values: Tensor, axis: int) -> Tensor:
        """(batch, heads, length, head_dim)."""
        values = values.transpose(0, axis)
        return values.reshape(*values.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(self, q: Tensor, padding: Tensor | None, attention: Tensor | None) -> Tensor | None:
        """What is added to the scores, for each example and head where they differ."""
        mask = None
        if attention is not None:
            mask = _added(attention, q)
            mask = mask.reshape(q.shape[0], self.num_heads, *mask.shape[1:]) if mask.dim() == 3 else mask
        if padding is not None:
            padded = _added(padding, q)[..., None, None, :]
            mask = padded if mask is None else mask + padded
        return mask


def _sources(name: str) -> set[str]:
    """What a parameter may be called in `nn.MultiheadAttention`, which may have those of three projections in one."""
    part, _, kind = name.partition(".")
    return {name} if part == "out_proj" else {f"{part}_{kind}", f"in_proj_{kind}"}


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """Of a mask that is true where nothing is read, or one to be added."""
    zeros = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else zeros + mask
