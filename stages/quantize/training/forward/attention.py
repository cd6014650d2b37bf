"""Multi-head attention of torch, call by call: its own function hides the products inside it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

NAME = "multi_head_attention_forward"


def is_plain(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> bool:
    """Whether it is attention of a batch of sequences to themselves, with one weight and nothing appended."""
    appended = (*rest[4:7], *(named.get(name) for name in ("use_separate_proj_weight", "static_k", "static_v")))
    alike = query is key and key is value and query.dim() == 3
    return alike and all(value is None or value is False for value in appended)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    width: int,
    heads: int,
    in_weight: Tensor,
    in_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout: float,
    out_weight: Tensor,
    out_bias: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """What `torch.nn.functional.multi_head_attention_forward` gives where `is_plain` and nothing is appended.

    Args: those of that function, in its order.

    Reference:
        A. Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762, equation 1.
    """
    steps, batch, _ = query.shape
    parts = F.linear(query, in_weight, in_bias).chunk(3, dim=-1)
    q, k, v = (part.reshape(steps, batch * heads, width // heads).transpose(0, 1) for part in parts)
    scores = torch.bmm(q * (width // heads) ** -0.5, k.transpose(1, 2))
    mask = _mask(options.get("attn_mask"), options.get("key_padding_mask"), batch, heads, scores.dtype)
    weights = F.softmax(scores if mask is None else scores + mask, dim=-1)
    kept = F.dropout(weights, dropout, options.get("training", True))
    mixed = torch.bmm(kept, v).transpose(0, 1).reshape(steps, batch, width)
    result = F.linear(mixed, out_weight, out_bias)
    if not options.get("need_weights", True):
        return result, None
    by_head = kept.view(batch, heads, steps, steps)
    return result, by_head.mean(1) if options.get("average_attn_weights", True) else by_head


def _mask(mask: Tensor | None, padding: Tensor | None, batch: int, heads: int, dtype: torch.dtype) -> Tensor | None:
    """What is added to the scores (batch * heads, steps, steps)."""
    added = None if mask is None else _as_floats(mask, dtype)
    if padding is not None:
        rows = _as_floats(padding, dtype)[:, None, None, :].expand(-1, heads, -1, -1).reshape(batch * heads, 1, -1)
        added = rows if added is None else added + rows
    return added


def _as_floats(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
