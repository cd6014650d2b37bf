"""How a split's examples become batches: their order, their augmentation, what a batch draws."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from pipeline.errors import ConfigError

Inputs = dict[str, Tensor]
Outputs = dict[str, Tensor]
Axes = Mapping[str, Mapping[int, str]]
"""Input -> {axis: name} of the axes beside the batch whose length varies; equal names are equal lengths."""

Augment = Callable[[Inputs, int, int], Inputs]

NEARBY = 32  # batches whose examples change places to be with others of their length


class Batch(NamedTuple):
    """index: (B,) positions in the split; inputs: name -> (B, ...); targets: whatever the task's collate makes."""

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody looks for in a batch
    inputs: Inputs
    targets: Any


class Examples(Protocol):
    """A map-style dataset: `dataset[i]` is (inputs, target), inputs a tensor or a dictionary of tensors by name."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def as_inputs(inputs: Tensor | Mapping[str, Tensor]) -> Inputs:
    """Name the inputs: a bare tensor is "input"."""
    if isinstance(inputs, Tensor):
        return {"input": inputs}
    if isinstance(inputs, Mapping):
        return dict(inputs)
    problem = f"an example's inputs are {type(inputs).__name__}"
    raise ConfigError(problem, where="task", expected="a tensor or a dictionary of tensors")


def scored(outputs: Outputs, name: str | None = None) -> Tensor:
    """The output of that name, or the first one. Raises ConfigError where the model gives none of that name."""
    if name is None:
        return next(iter(outputs.values()))
    if name not in outputs:
        expected = f"`output` to be one of those that it gives: {', '.join(outputs)}"
        raise ConfigError(f"the model gives no output `{name}`", expected=expected)
    return outputs[name]


class Indexed(Dataset[Any]):
    """Adds each example's position and its augmentation."""

    def __init__(self, split: Examples, augment: Augment | None, seed: int, view: int) -> None:
        self.split, self.augment, self.seed, self.view = split, augment, seed, view

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[int, Inputs, Any]]:
        """A batch at once, as torch's loaders ask for it."""
        with _drawing(self.seed, self.view, indices[0]):
            rows = [(index, *self.split[index]) for index in indices]  # all read before the first is augmented,
            return [(index, self._view(index, inputs), target) for index, inputs, target in rows]  # which seeds anew

    def _view(self, index: int, inputs: Inputs) -> Inputs:
        if not self.augment:
            return inputs
        _seed(self.seed, self.view, index)
        # Distinct odd multipliers keep (seed, index) pairs apart; the view goes to the function by itself.
        return self.augment(inputs, (self.seed * 1_000_003 + index * 7_919) % 2**63, self.view)


class Whole(Dataset[Any]):
    """Examples that lie in two tensors, taken a batch at a time; the batches are those that stacking them gives."""

    def __init__(self, tensors: tuple[Tensor, Tensor], rows: Tensor) -> None:
        self.tensors, self.rows = tensors, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch at once, as torch's loaders ask for it."""
        index = torch.tensor(indices)
        inputs, targets = (tensor.index_select(0, self.rows[index]) for tensor in self.tensors)
        return Batch(index, as_inputs(inputs), targets)


def in_memory(dataset: Any) -> Whole | None:
    """The dataset, where it is two plain tensors or a part of them; a class that is derived may do anything."""
    if type(dataset) is Subset:
        inner = in_memory(dataset.dataset)
        rows = torch.from_numpy(np.array(dataset.indices, dtype=np.int64, order="C"))
        return None if inner is None else Whole(inner.tensors, inner.rows[rows])
    if type(dataset) is not TensorDataset or len(dataset.tensors) != 2 or not all(map(_plain, dataset.tensors)):
        return None
    return Whole(dataset.tensors, torch.arange(len(dataset)))


def _plain(tensor: Tensor) -> bool:
    """Whether selecting rows gives to the bit, and in the same layout, what stacking them gives."""
    dense = tensor.device.type == "cpu" and tensor.layout is torch.strided
    return dense and tensor.is_contiguous() and not tensor.requires_grad


def as_it_is(batch: Any) -> Any:
    """A collate for batches that come as one."""
    return batch


class Collate:
    """A class and not a closure, so that spawned workers can receive it."""

    def __init__(self, collate: Callable[[list[Any]], tuple[Any, Any]] | None, seed: int, epoch: int) -> None:
        self.collate, self.seed, self.epoch = collate, seed, epoch

    def __call__(self, rows: list[tuple[int, Inputs, Any]]) -> Batch:
        """The batch of these positions, inputs and targets."""
        inputs, targets = self._collated([(inputs, target) for _, inputs, target in rows], rows[0][0])
        return Batch(torch.tensor([index for index, _, _ in rows]), as_inputs(inputs), targets)

    def _collated(self, rows: list[Any], index: int) -> tuple[Any, Any]:
        if self.collate is None:  # torch's own draws nothing
            inputs, targets = default_collate(rows)
            return inputs, targets
        with _drawing(self.seed, self.epoch, index):
            return self.collate(rows)


def in_turn(size: int, order: tuple[int, int] | None, lengths: Tensor | None, batch_size: int) -> Tensor:
    """The positions (size,) in turn: as they are, or a permutation that depends on (seed, epoch) alone.

    With lengths, the examples of every 32 batches are sorted by them. Where there is an order the batches are then
    shuffled, all but a last one that is not full: otherwise the lengths would rise and fall through the epoch.
    """
    if order is None:
        positions = torch.arange(size)
    else:
        generator = torch.Generator().manual_seed((order[0] * 1_000_003 + order[1]) % 2**63)
        positions = torch.randperm(size, generator=generator)
    if lengths is None or not size:
        return positions
    near = [part[lengths[part].argsort(stable=True)] for part in torch.split(positions, NEARBY * batch_size)]
    if order is None:
        return torch.cat(near)
    full, rest = torch.split(torch.cat(near), [size - size % batch_size, size % batch_size])
    batches = full.view(-1, batch_size)
    return torch.cat([batches[torch.randperm(len(batches), generator=generator)].flatten(), rest])


@contextmanager
def _drawing(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Seed the global generators for a batch, and then leave them as they were.

    A loader fetches ahead, here or in other processes; a training that goes on must see what it would have seen.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _seed(seed, epoch, index)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def _seed(seed: int, epoch: int, index: int) -> None:
    own = (seed * 1_000_003 + epoch * 104_729 + index * 7_919) % 2**32
    random.seed(own)
    np.random.seed(own)
    torch.default_generator.manual_seed(own)  # not torch.manual_seed: it would reset the GPU's, which the model uses
