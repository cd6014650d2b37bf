"""The calls of a forward: which of them read weights, and what is in their arguments."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
TABLES = ("embedding", "embedding_bag")
PARAMETERS = {
    **dict.fromkeys((*CONVOLUTIONS, "linear"), ("input", "weight", "bias")),
    "matmul": ("input", "other"),
    "mm": ("input", "mat2"),
    "addmm": ("input", "mat1", "mat2"),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", *TABLES), ("input", "weight")),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), ()),
}
"""Functions that read weights, and the names of their first parameters."""
INPUT = {**dict.fromkeys((*CONVOLUTIONS, "linear", "matmul", "mm"), 0), "addmm": 1}
"""Where those have their input that ONNX Runtime computes in integers."""
AXIS = {**dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", *TABLES, "matmul", "mm"), 1),
        "addmm": 1}  # fmt: skip
"""The axis of a weight that has its channels, where it is not the first."""
POOLS = ("max_pool1d", "max_pool2d", "max_pool3d")
CARRIED = (*POOLS, "flatten", "permute", "reshape", "squeeze", "transpose", "unsqueeze", "view")
"""Functions that ONNX Runtime computes on integers by itself, so that nothing is quantized again behind them."""
ADDITIONS = ("add", "add_")
CLIPS = ("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "clamp_", "clip", "clip_")
MOVES = (
    *POOLS, "chunk", "clone", "contiguous", "dropout", "dropout1d", "dropout2d", "dropout3d", "expand", "flatten",
    "narrow", "permute", "repeat", "reshape", "select", "split", "squeeze", "t", "tile", "transpose", "unflatten",
    "unsqueeze", "view", "__getitem__",
)  # fmt: skip
"""Functions whose results are values of their input."""


def name_of(function: Any) -> str:
    """What a function of torch is called, as a method too."""
    return getattr(function, "__name__", "")


def positional(name: str, args: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with those that `PARAMETERS` names by position."""
    rest = dict(named)
    front = [rest.pop(key) for key in PARAMETERS.get(name, ())[len(args) :] if key in rest]
    return (*args, *front), rest


def tensors(*values: Any) -> list[Tensor]:
    """The tensors in arguments or results, in lists and dictionaries too."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def clipped_at(name: str, args: tuple[Any, ...], named: Mapping[str, Any]) -> float | None:
    """The upper bound of what clips values at zero: infinity for a ReLU; None where it does something else."""
    if name in ("relu", "relu_"):
        return float("inf")
    if name == "relu6":
        return 6.0
    keys = ("min_val", "max_val") if name.startswith("hardtanh") else ("min", "max")
    defaults = (-1.0, 1.0) if name.startswith("hardtanh") else (None, None)
    bounds = [args[i + 1] if len(args) > i + 1 else named.get(keys[i], defaults[i]) for i in (0, 1)]
    if any(bound is not None and not isinstance(bound, int | float) for bound in bounds) or bounds[0] != 0:
        return None
    return float("inf") if bounds[1] is None else float(bounds[1])


def layer_of(weight: str) -> str:
    """The layer of a weight by its name; a weight of the module itself keeps its own."""
    return weight.rpartition(".")[0] or weight


def first_of(values: Iterable[Any]) -> Any:
    """The first of values; None where there is none."""
    return next(iter(values), None)
