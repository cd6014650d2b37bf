"""Data that were given from Python -> splits: tensors, datasets and loaders, each example counted once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from pipeline.errors import ConfigError, blame
from pipeline.task import Split

TARGETS = ("labels", "label", "targets", "target", "y")
"""Names of the target in examples that are one dictionary."""

KINDS = "a DataLoader, a dataset of (inputs, target), or a pair of tensors (inputs, targets)"


def split_of(name: str, value: Any) -> Split:
    """The split that a loader, a dataset or tensors make.

    Of a loader its dataset, `collate_fn` and choice of examples are taken; order and size of batches are the stages'.

    Raises:
        ConfigError: it is none of these, a loader's sampler does not take each example once, or its examples are
            neither pairs nor dictionaries with a target.
    """
    with blame(ConfigError, name):
        if value is None:
            raise ConfigError("there are no data", expected=KINDS, fix=f"Give `{name}=`")
        if isinstance(value, Split):
            return value
        if isinstance(value, DataLoader):
            return _of_loader(value)
        if _is_pair(value):
            return Split(_of_tensors(*value))
        if isinstance(value, Tensor | np.ndarray | Mapping | str) or not hasattr(value, "__getitem__"):
            problem, fix = f"it is {_kind(value)}", ""
            if isinstance(value, IterableDataset):
                fix = "Read it into a list, or give a map-style dataset"
            elif isinstance(value, Tensor | np.ndarray):
                fix = "Give the targets too: (inputs, targets)"
            raise ConfigError(problem, expected=KINDS, fix=fix)
        return _adapted(value)


def _is_pair(value: Any) -> bool:
    """Whether it is (inputs, targets) of all examples together; a list of two examples is not."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        return False
    inputs, targets = value
    return isinstance(targets, Tensor | np.ndarray) and isinstance(inputs, Tensor | np.ndarray | Mapping)


def _of_tensors(inputs: Any, targets: Any) -> Any:
    """Tensors (N, ...) of inputs, one or several by name, and of targets (N, ...), as a dataset."""
    columns = dict(inputs) if isinstance(inputs, Mapping) else {"input": inputs}
    tensors = [torch.as_tensor(values).detach().cpu().contiguous() for values in (*columns.values(), targets)]
    sizes = dict(zip((*columns, "the targets"), (len(t) if t.ndim else 0 for t in tensors), strict=True))
    if len({*sizes.values()}) > 1:
        counts = ", ".join(f"{size} in {name}" for name, size in sizes.items())
        raise ConfigError(f"there are {counts}", expected="as many inputs as targets")
    rows = TensorDataset(*tensors)
    return _Columns(rows, tuple(map(str, columns))) if isinstance(inputs, Mapping) else rows


class _Columns(Dataset[Any]):
    """Rows of tensors, the last of them the target, as (inputs by name, target)."""

    def __init__(self, rows: TensorDataset, names: tuple[str, ...]) -> None:
        self.rows, self.names = rows, names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        *values, target = self.rows[index]
        return dict(zip(self.names, values, strict=True)), target


class _TargetApart(Dataset[Any]):
    """Examples that are one dictionary, as (inputs, target); numbers in lists become tensors."""

    def __init__(self, dataset: Any, target: str) -> None:
        self.dataset, self.target = dataset, target

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        example = dict(self.dataset[index])
        target = example.pop(self.target)
        return {name: _as_tensor(value) for name, value in example.items()}, target


@dataclass(frozen=True)
class _Collate:
    """A loader's `collate_fn`, given the examples as they are in its dataset.

    Args:
        function: the loader's.
        target: the name of the target in examples that are dictionaries.
        is_named: whether the inputs of an example that is a pair are a dictionary.
    """

    function: Any
    target: str | None
    is_named: bool

    def __call__(self, examples: list[Any]) -> tuple[Any, Any]:
        batch = self.function([self._as_it_was(inputs, target) for inputs, target in examples])
        if isinstance(batch, Mapping):
            columns = dict(batch)
            name = next((name for name in (self.target, *TARGETS) if name in columns), None)
            if name is not None:
                return {n: v for n, v in columns.items() if n != name}, columns[name]
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise ConfigError(f"`collate_fn` gave {_kind(batch)}", expected="a pair, (inputs, targets)")
        return batch[0], batch[1]

    def _as_it_was(self, inputs: Any, target: Any) -> Any:
        if self.target is not None:
            return {**inputs, self.target: target}
        return (inputs if self.is_named else next(iter(inputs.values())), target)


def _of_loader(loader: DataLoader[Any]) -> Split:
    dataset, indices = loader.dataset, _chosen(loader)
    split = _adapted(dataset)
    if loader.collate_fn is not default_collate:
        inputs = dataset[0] if isinstance(split.dataset, _TargetApart) else dataset[0][0]
        target = split.dataset.target if isinstance(split.dataset, _TargetApart) else None
        collate = _Collate(loader.collate_fn, target, isinstance(inputs, Mapping))
        split = Split(split.dataset, collate=collate)
    return split if indices is None else split.select(indices)


def _chosen(loader: DataLoader[Any]) -> list[int] | None:
    """The examples that a loader takes; None for each of them once. Raises ConfigError for any other choice."""
    sampler: Any = loader.sampler
    fix = "Give the dataset itself, or a Subset of it"
    if isinstance(loader.dataset, IterableDataset):
        expected, fix = "a map-style one", "Read it into a list"
        raise ConfigError("its dataset is an IterableDataset", expected=expected, fix=fix)
    if type(loader.batch_sampler) is not BatchSampler:
        name = "none" if loader.batch_sampler is None else f"a {type(loader.batch_sampler).__name__}"
        raise ConfigError(f"its batch sampler is {name}, so the examples that it takes are not known", fix=fix)
    if type(sampler) is SubsetRandomSampler:
        indices = [int(i) for i in sampler.indices]
        if repeats := len(indices) - len({i % len(loader.dataset) for i in indices}):  # type: ignore[arg-type]
            problem = f"its sampler, a SubsetRandomSampler, takes examples twice, {repeats} times"
            raise ConfigError(problem, expected="each example once", fix=fix)
        return indices
    in_turn = type(sampler) is SequentialSampler
    shuffled = type(sampler) is RandomSampler and not sampler.replacement
    if (in_turn or shuffled) and len(sampler) == len(loader.dataset):  # type: ignore[arg-type]
        return None
    takes = f"takes {len(sampler)} of {len(loader.dataset)} examples" if hasattr(sampler, "__len__") else "chooses"  # type: ignore[arg-type]
    problem = f"its sampler, a {type(sampler).__name__}, {takes}, and may draw some twice"
    raise ConfigError(problem, expected="each example once", fix=fix)


def _adapted(dataset: Any) -> Split:
    """The split of a dataset whose examples are pairs, or dictionaries with a target."""
    if not hasattr(dataset, "__len__") or len(dataset) == 0:
        return Split(dataset)  # which says what is wrong, or is refused as empty
    example = dataset[0]
    if isinstance(example, Mapping):
        name = next((name for name in TARGETS if name in example), None)
        if name is None:
            problem = f"an example has {', '.join(f'`{key}`' for key in example) or 'nothing'}, and none is the target"
            raise ConfigError(problem, expected=f"one of {', '.join(TARGETS)}", fix="Give pairs, (inputs, target)")
        return Split(_TargetApart(dataset, name))
    if not isinstance(example, Sequence) or isinstance(example, str) or len(example) != 2:
        fix = "Wrap the dataset so that it gives (inputs, target); several inputs are a dictionary of tensors"
        raise ConfigError(f"an example is {_kind(example)}", expected="a pair, (inputs, target)", fix=fix)
    return Split(dataset)


def _as_tensor(value: Any) -> Any:
    is_numbers = isinstance(value, list | np.ndarray | int | float | np.generic)
    try:
        return torch.as_tensor(value) if is_numbers else value
    except (TypeError, ValueError):  # texts, or lists of other lengths; what comes is told as no tensor
        return value


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    size = f" of {len(value)}" if isinstance(value, tuple | list | Mapping) else ""
    return f"a {type(value).__name__}{size}"
