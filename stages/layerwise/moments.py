"""What calibration data say of layers in sums: the second moments of what they read, and errors of what they give."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.context import Context
from pipeline.errors import StageError
from stages.layerwise.calibration import watch

Rows = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Iterable[Tensor]]
"""(a layer, its arguments by position, by name) -> what its weight is multiplied with: (..., rows, width), in parts."""
Change = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor]
"""(the layer's name, it, its arguments by position, by name, its output) -> by how much that would be another."""


def input_sums(
    module: nn.Module,
    layers: Mapping[str, str],
    rows_of: Rows,
    kind: Literal["squares", "products"],
    ctx: Context,
    examples: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """By key the sums over the rows x that layers read: x^2 (..., width), or x x^T (..., width, width), on the CPU.

    Args:
        module: not changed.
        layers: name -> key; layers that share a weight have the same.
        rows_of: see `Rows`.
        kind: squares or products.
        ctx: its calibration data are read.
        examples: of these at most; 0 for all.
        dtype: of the sums.

    Returns:
        Of the layers that run.

    Raises:
        StageError: what a layer reads is not finite.
    """
    sums: dict[str, Tensor] = {}

    def look(key: str, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], _: Any) -> None:
        for rows in rows_of(layer, args, named):
            new = rows.square().sum(-2) if kind == "squares" else rows.mT @ rows
            _add(sums, key, new.to("cpu", dtype))

    watch(module, {name: partial(look, key) for name, key in layers.items()}, "what layers read", ctx, examples)
    if wrong := next((key for key, total in sums.items() if not total.isfinite().all()), None):
        raise StageError(
            f"what `{wrong}` reads is not finite", fix="Look for NaN in the calibration data or the weights"
        )
    return sums


def output_changes(
    module: nn.Module, layers: Mapping[str, str], change_of: Change, ctx: Context, examples: int = 0
) -> dict[str, float]:
    """By key the squared change of what layers give as a share of its square, over calibration data.

    Args:
        module, layers, ctx, examples: as in `input_sums`.
        change_of: see `Change`.
    """
    sums: dict[str, Tensor] = {}

    def look(name: str, layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        both = (change_of(name, layer, args, named, output), output)
        _add(sums, layers[name], torch.stack([values.double().square().sum().cpu() for values in both]))

    watch(module, {name: partial(look, name) for name in layers}, "errors of outputs", ctx, examples)
    return {key: float(change / total.clamp_min(1e-300)) for key, (change, total) in sums.items()}


def _add(sums: dict[str, Tensor], key: str, new: Tensor) -> None:
    sums[key] = sums[key] + new if key in sums else new
