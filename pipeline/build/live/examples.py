"""Examples as users' datasets give them -> (inputs, target)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from pipeline.errors import ConfigError
from pipeline.task import Split

TARGETS = ("labels", "label", "targets", "target", "y")
"""Names of the target in examples that are one dictionary."""


class Columns(Dataset[Any]):
    """Rows of tensors, the last of them the target, as (inputs by name, target)."""

    def __init__(self, rows: TensorDataset, names: tuple[str, ...]) -> None:
        self.rows, self.names = rows, names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        *values, target = self.rows[index]
        return dict(zip(self.names, values, strict=True)), target


class TargetApart(Dataset[Any]):
    """Examples that are one dictionary, as (inputs, target); numbers in lists become tensors."""

    def __init__(self, dataset: Any, target: str) -> None:
        self.dataset, self.target = dataset, target

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        example = dict(self.dataset[index])
        target = example.pop(self.target)
        return {name: _as_tensor(value) for name, value in example.items()}, target


def adapted(dataset: Any) -> Split:
    """The split of a dataset whose examples are pairs, or dictionaries with a target."""
    if not hasattr(dataset, "__len__") or len(dataset) == 0:
        return Split(dataset)  # which says what is wrong, or is refused as empty
    example = dataset[0]
    if isinstance(example, Mapping):
        name = next((name for name in TARGETS if name in example), None)
        if name is None:
            problem = f"an example has {', '.join(f'`{key}`' for key in example) or 'nothing'}, and none is the target"
            raise ConfigError(problem, expected=f"one of {', '.join(TARGETS)}", fix="Give pairs, (inputs, target)")
        return Split(TargetApart(dataset, name))
    if not isinstance(example, Sequence) or isinstance(example, str) or len(example) != 2:
        fix = "Wrap the dataset so that it gives (inputs, target); several inputs are a dictionary of tensors"
        raise ConfigError(f"an example is {kind(example)}", expected="a pair, (inputs, target)", fix=fix)
    return Split(dataset)


def _as_tensor(value: Any) -> Any:
    is_numbers = isinstance(value, list | np.ndarray | int | float | np.generic)
    try:
        return torch.as_tensor(value) if is_numbers else value
    except (TypeError, ValueError):  # texts, or lists of other lengths; what comes is told as no tensor
        return value


def kind(value: Any) -> str:
    """What a value is, for errors."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    size = f" of {len(value)}" if isinstance(value, tuple | list | Mapping) else ""
    return f"a {type(value).__name__}{size}"
