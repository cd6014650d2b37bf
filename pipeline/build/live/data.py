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
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from pipeline.build.live.examples import TARGETS, Columns, TargetApart, adapted, kind
from pipeline.errors import ConfigError, blame
from pipeline.task import Split

KINDS = "a DataLoader, a dataset of (inputs, target), or a pair of tensors (inputs, targets)"


def split_of(name: str, value: Any, *, may_repeat: bool = False) -> Split:
    """The split that a loader, a dataset or tensors make.

    Of a loader its dataset, `collate_fn` and choice of examples are taken; order and size of batches are the stages'.

    Args:
        name: of the split, for errors.
        value: see KINDS.
        may_repeat: whether a Subset may have examples more often than once, as those to train on may.

    Raises:
        ConfigError: it is none of these, a loader's sampler or a Subset does not take each example once, or its
            examples are neither pairs nor dictionaries with a target.
    """
    with blame(ConfigError, name):
        if value is None:
            raise ConfigError("there are no data", expected=KINDS, fix=f"Give `{name}=`")
        if not may_repeat:
            _refuse_repeats(value.dataset if isinstance(value, DataLoader | Split) else value)
        if isinstance(value, Split):
            return value
        if isinstance(value, DataLoader):
            return _of_loader(value)
        if _is_pair(value):
            return Split(_of_tensors(*value))
        if isinstance(value, Tensor | np.ndarray | Mapping | str) or not hasattr(value, "__getitem__"):
            problem, fix = f"it is {kind(value)}", ""
            if isinstance(value, IterableDataset):
                fix = "Read it into a list, or give a map-style dataset"
            elif isinstance(value, Tensor | np.ndarray):
                fix = "Give the targets too: (inputs, targets)"
            raise ConfigError(problem, expected=KINDS, fix=fix)
        return adapted(value)


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
    return Columns(rows, tuple(map(str, columns))) if isinstance(inputs, Mapping) else rows


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
            raise ConfigError(f"`collate_fn` gave {kind(batch)}", expected="a pair, (inputs, targets)")
        return batch[0], batch[1]

    def _as_it_was(self, inputs: Any, target: Any) -> Any:
        if self.target is not None:
            return {**inputs, self.target: target}
        return (inputs if self.is_named else next(iter(inputs.values())), target)


def _of_loader(loader: DataLoader[Any]) -> Split:
    dataset, indices = loader.dataset, _chosen(loader)
    split = adapted(dataset)
    if loader.collate_fn is not default_collate:
        inputs = dataset[0] if isinstance(split.dataset, TargetApart) else dataset[0][0]
        target = split.dataset.target if isinstance(split.dataset, TargetApart) else None
        collate = _Collate(loader.collate_fn, target, isinstance(inputs, Mapping))
        split = Split(split.dataset, collate=collate)
    return split if indices is None else split.select(indices)


def _refuse_repeats(dataset: Any) -> None:
    if isinstance(dataset, Subset):
        _require_once("it, a Subset,", _places(dataset), "Give each index once")


def _places(subset: Subset[Any]) -> list[int]:
    """Which examples of the innermost dataset it takes."""
    places = _whole(subset.indices, subset.dataset)
    if not isinstance(subset.dataset, Subset):
        return places
    inner = _places(subset.dataset)
    return [inner[place] for place in places]


def _whole(indices: Sequence[int], dataset: Any) -> list[int]:
    """Indices with -1 as what it means, the last one."""
    return [int(i) if i >= 0 else int(i) + len(dataset) for i in indices]


def _require_once(what: str, places: Sequence[int], fix: str) -> None:
    """Raise ConfigError where an example is taken twice."""
    if repeats := len(places) - len({*places}):
        raise ConfigError(f"{what} takes examples twice, {repeats} times", expected="each example once", fix=fix)


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
        _require_once("its sampler, a SubsetRandomSampler,", _whole(sampler.indices, loader.dataset), fix)
        return [int(i) for i in sampler.indices]
    in_turn = type(sampler) is SequentialSampler
    shuffled = type(sampler) is RandomSampler and not sampler.replacement
    if (in_turn or shuffled) and len(sampler) == len(loader.dataset):  # type: ignore[arg-type]
        return None
    takes = f"takes {len(sampler)} of {len(loader.dataset)} examples" if hasattr(sampler, "__len__") else "chooses"  # type: ignore[arg-type]
    problem = f"its sampler, a {type(sampler).__name__}, {takes}, and may draw some twice"
    raise ConfigError(problem, expected="each example once", fix=fix)
