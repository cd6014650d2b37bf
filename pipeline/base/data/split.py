"""A part of the data: its examples with named inputs, its batches, and parts of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from pipeline.base.batches import (
    Augment,
    Batch,
    Collate,
    Examples,
    Indexed,
    Inputs,
    as_inputs,
    as_it_is,
    in_memory,
    in_turn,
)
from pipeline.errors import ConfigError, StageError


@dataclass(frozen=True)
class Split:
    """A part of the data.

    Args:
        dataset: map-style; `dataset[i]` gives (inputs, target); a bare tensor of inputs is named "input".
        collate: list of (inputs by name, target) -> (batched inputs, batched targets); torch's default stacks.
        fingerprint: a version of the content, such as a dataset's own; it enters keys beside the samples' hashes.
        lengths: of each example, such as its tokens, where `collate` pads: training then takes examples of about one
            length together, which saves most of the padding.
        varies: whether an example, or its batch, is another one when it is read again, as random transforms in the
            dataset make it; found out before a run unless given. Nothing is kept by example of such a split.
    """

    dataset: Examples
    collate: Callable[[list[Any]], tuple[Any, Any]] | None = None
    fingerprint: str | None = None
    lengths: Sequence[int] | None = None
    varies: bool | None = None

    def __post_init__(self) -> None:
        if not hasattr(self.dataset, "__len__") or not hasattr(self.dataset, "__getitem__"):
            problem = f"a dataset is a {type(self.dataset).__name__}"
            expected = "a map-style one, with dataset[i] and len(dataset)"
            raise ConfigError(problem, where="task", expected=expected, fix="Write Split(list(dataset))")

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Inputs, Any]:
        """One example with its inputs named."""
        example = self.dataset[index]
        if isinstance(example, Mapping) or len(example) != 2:
            problem = f"an example is a {type(example).__name__} of {len(example)}"
            raise ConfigError(problem, where="task", expected="a pair, (inputs, target)")
        inputs, target = example
        return as_inputs(inputs), target

    def select(self, indices: list[int]) -> "Split":
        """The examples at `indices`, in that order."""
        lengths = None if self.lengths is None else [self.lengths[i] for i in indices]
        dataset: Any = Subset(self.dataset, indices)  # type: ignore[arg-type]
        return replace(self, dataset=dataset, fingerprint=None, lengths=lengths)

    def loader(
        self,
        batch_size: int,
        *,
        order: tuple[int, int] | None = None,
        seed: int | None = None,
        view: int | None = None,
        augment: Augment | None = None,
        workers: int = 0,
        skip: int = 0,
        pin: bool = False,
        similar: bool = False,
    ) -> DataLoader[Batch]:
        """Batches of named inputs.

        Args:
            batch_size: examples a batch.
            order: (seed, epoch); shuffles by it, and drops the last batch where it is not full. None keeps the order.
            seed: of the augmentation; that of the order unless given.
            view: which augmentation to show; the epoch unless given.
            augment: applied to each example with (inputs, seed, view), where the seed is the example's own: what it
                gives depends on (seed, view, example) alone, not on the batch that it falls in. The global generators
                are seeded by the same for one that draws from them.
            workers: loader processes.
            skip: batches to leave out at the front of the shuffled order.
            pin: keep batches in memory that a GPU can copy from while it computes.
            similar: batches of examples of about one length, where `lengths` tells it. Without an order each stays
                within the 32 batches that it would be in, and the index of a batch says where its examples belong.
        """
        start, epoch = order or (seed or 0, 0)
        seed, view = start if seed is None else seed, epoch if view is None else view
        lengths = None if self.lengths is None or not similar else torch.as_tensor(self.lengths)
        sampler = None
        if order or lengths is not None:
            positions = in_turn(len(self), order, lengths, batch_size)
            sampler = positions[skip * batch_size :].tolist()
        whole = None if augment or self.collate else in_memory(self.dataset)
        return DataLoader(
            Indexed(self, augment, seed, view) if whole is None else whole,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=order is not None and len(self) >= batch_size,
            collate_fn=Collate(self.collate, seed, epoch) if whole is None else as_it_is,
            num_workers=workers,
            pin_memory=pin,
            generator=torch.Generator().manual_seed(seed),  # its own, so that loading draws from no other
        )


@dataclass(frozen=True)
class Sealed:
    """As many examples as a split has, of which none can be read."""

    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        """Raise StageError: what is chosen or trained by the test data is not tested by them."""
        raise StageError("it reads the test split", expected="train, calibration and validation: a stage cannot peek")


def sample(split: Split, size: int, seed: int = 0) -> Split:
    """A fixed random sample without replacement of at most `size` examples."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return split.select(order[:size].tolist())


def split_by_seed(split: Split, shares: list[float], seed: int = 0) -> list[Split]:
    """Cut a split into random parts with the given shares (of 1 at most together), the same for the same seed."""
    if min(shares) < 0 or sum(shares) > 1 + 1e-9:
        raise ConfigError(f"the shares are {shares}", where="task", expected="0 or more each, at most 1 in all")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed)).tolist()
    ends = [0, *(round(sum(shares[: i + 1]) * len(split)) for i in range(len(shares)))]
    return [split.select(order[a:b]) for a, b in pairwise(ends)]
