"""What the user brings: data in four splits, a loss, a way to decode and to score. The model is its own key."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, TensorDataset, default_collate

from pipeline.errors import ConfigError
from pipeline.model import Axes, Inputs, Outputs

Forward = Callable[[Inputs], Outputs]
Augment = Callable[[Inputs, int, int], Inputs]
Show = Callable[[Inputs], Tensor | str]
AsTarget = Callable[[Inputs, Tensor], tuple[Inputs, Any]]

CALIBRATION_EXAMPLES = 512
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


@dataclass(frozen=True)
class Split:
    """A part of the data.

    Args:
        dataset: map-style; `dataset[i]` gives (inputs, target); a bare tensor of inputs is named "input".
        collate: list of (inputs by name, target) -> (batched inputs, batched targets); torch's default stacks.
        fingerprint: a version of the content, such as a dataset's own; it enters keys beside the samples' hashes.
        lengths: of each example, such as its tokens, where `collate` pads: training then takes examples of about one
            length together, which saves most of the padding.
    """

    dataset: Examples
    collate: Callable[[list[Any]], tuple[Any, Any]] | None = None
    fingerprint: str | None = None
    lengths: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Inputs, Any]:
        """One example with its inputs named."""
        inputs, target = self.dataset[index]
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
            positions = _positions(len(self), order, lengths, batch_size)
            sampler = _Positions(positions[skip * batch_size :].tolist())
        whole = None if augment or self.collate else _whole(self.dataset)
        return DataLoader(
            _Indexed(self, augment, seed, view) if whole is None else whole,
            batch_size=batch_size,
            sampler=sampler,
            drop_last=order is not None and len(self) >= batch_size,
            collate_fn=_Collate(self.collate, seed, epoch) if whole is None else _as_it_is,
            num_workers=workers,
            pin_memory=pin,
            generator=torch.Generator().manual_seed(seed),  # its own, so that loading draws from no other
        )


def scored(outputs: Outputs, name: str | None = None) -> Tensor:
    """The output of that name, or the first one. Raises ConfigError where the model gives none of that name."""
    if name is None:
        return next(iter(outputs.values()))
    if name not in outputs:
        expected = f"`output` to be one of those that it gives: {', '.join(outputs)}"
        raise ConfigError(f"the model gives no output `{name}`", expected=expected)
    return outputs[name]


@dataclass(frozen=True)
class Metric:
    """A metric over a whole set that looks at each example once, so that an interval by resampling costs little.

    Any function (predictions, targets) -> float is a metric too; it is then called anew for each resample.

    Args:
        rows: (predictions, targets) -> (N, ...), what each example contributes, such as counts.
        figure: (any rows of these) -> the metric over their examples.
    """

    rows: Callable[[Any, Any], Any]
    figure: Callable[[Any], float]

    def __call__(self, predictions: Any, targets: Any) -> float:
        """The metric over all examples."""
        return self.figure(self.rows(predictions, targets))


@dataclass(frozen=True)
class Output:
    """The default way to decode: the output of that name, or the first one."""

    name: str | None = None

    def __call__(self, forward: Forward, inputs: Inputs) -> Tensor:
        """What the model gives there."""
        return scored(forward(inputs), self.name)


first_output = Output()


@dataclass(frozen=True)
class Task:
    """The data and what is good.

    Args:
        train, validation, test: what trains, chooses, reports.
        loss: (outputs, targets) -> scalar, differentiable.
        score: (predictions, targets) -> (N,), per example, higher is better; right or wrong is 1.0 or 0.0.
        calibration: part of train; by default a fixed random sample of it.
        decode: (forward, inputs) -> predictions (N, ...); the model's `output` unless given.
        metrics: name -> f(predictions, targets) -> float over the whole split: F1, Spearman, BLEU, as there are in
            `pipeline.tasks.metrics`; see `Metric` for slow ones. Predictions and targets of the whole split are held in
            memory for them: where these are logits over many tokens, let `decode` give what the metric needs.
        augment: (inputs of one example, seed, view) -> inputs; used on train only. The view is the epoch, or one of a
            few that come round again where a teacher's logits on them are kept.
        logits: predictions are unnormalized scores over classes on the last axis, so that agreement is of the best
            class and KL divergence means something.
        as_target: (inputs of one example, tokens (T,)) -> the training example (inputs, target) that has these tokens
            as its target; distillation of sequences needs it.
        labels: names of the classes, in the order of their numbers.
        preprocessing: how what the model is fed is made, for whoever deploys it: "grey pixels / 16, as (1, 8, 8)".
        show: (inputs of one example) -> what a report shows of it: text, or an image (1 or 3, H, W) from 0 to 1. Inputs
            that are such images already, and curves, need none.
        output: name of the output that is scored and trained on, the logits, unless `decode` and `loss` look at others;
            all models of a chain, teachers too, give it. The first output unless given.
        axes: input -> {axis: name} of the axes beside the batch whose length varies from batch to batch, such as
            {"input_ids": {1: "tokens"}, "attention_mask": {1: "tokens"}}; equal names are equal lengths. The exported
            file takes any length there. `collate` may then pad each batch to its own longest example.
        fill: what pads predictions and targets of batches of other lengths before they are joined for metrics.
        tokenizer: the fast tokenizer of transformers that made the inputs, where there is one.
    """

    train: Split
    validation: Split
    test: Split
    loss: Callable[[Outputs, Any], Tensor]
    score: Callable[[Any, Any], Tensor]
    calibration: Split = None  # type: ignore[assignment]  # filled in below; optional for whoever makes a task
    decode: Callable[[Forward, Inputs], Tensor] = first_output
    metrics: Mapping[str, Callable[[Any, Any], float]] = field(default_factory=dict)
    augment: Augment | None = None
    logits: bool = False
    as_target: AsTarget | None = None
    labels: Sequence[str] = ()
    preprocessing: str = ""
    show: Show | None = None
    output: str | None = None
    axes: Axes = field(default_factory=dict)
    fill: int = -100
    tokenizer: Any = None

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            if not isinstance(given := getattr(self, name), Split):
                found = f"`{name}` is a {type(given).__name__}"
                raise ConfigError(found, where="task", expected="a pipeline.task.Split", fix="Write Split(dataset)")
        for name in {name for by_axis in self.axes.values() for name in by_axis.values()}:
            if not name.isidentifier() or name == "batch":
                expected = "a word of letters, digits and _, and not `batch`, which is the first axis"
                raise ConfigError(f"`axes` has the name `{name}`", where="task", expected=expected)
        if self.output and isinstance(self.decode, Output):
            object.__setattr__(self, "decode", Output(self.output))
        loss: Any = getattr(self.loss, "func", self.loss)
        if self.output and loss is cross_entropy:
            object.__setattr__(self, "loss", partial(cross_entropy, output=self.output))
        if self.calibration is None:
            object.__setattr__(self, "calibration", sample(self.train, CALIBRATION_EXAMPLES))

    @property
    def splits(self) -> dict[str, Split]:
        """The four splits by name."""
        names = ("train", "calibration", "validation", "test")
        return {name: getattr(self, name) for name in names}


def classification(train: Split, validation: Split, test: Split, **rest: Any) -> Task:
    """A task of single-label classification: cross-entropy on the output (N, classes), right or wrong."""
    return Task(train, validation, test, loss=cross_entropy, score=correct, **{"logits": True, **rest})


def cross_entropy(outputs: Outputs, targets: Tensor, output: str | None = None) -> Tensor:
    """Mean cross-entropy of an output, logits (N, classes), the first unless named, against class numbers (N,)."""
    return F.cross_entropy(scored(outputs, output), targets)


def correct(predictions: Tensor, targets: Tensor) -> Tensor:
    """1.0 where the best class of logits (N, classes) is the target (N,), else 0.0."""
    return (predictions.argmax(-1) == targets).float()


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


def as_inputs(inputs: Tensor | Mapping[str, Tensor]) -> Inputs:
    """Name the inputs: a bare tensor is "input"."""
    if isinstance(inputs, Tensor):
        return {"input": inputs}
    if isinstance(inputs, Mapping):
        return dict(inputs)
    raise ConfigError(
        f"an example's inputs are {type(inputs).__name__}", where="task", expected="a tensor or a dictionary of tensors"
    )


def kind(value: Any) -> str:
    """What a value is, for messages: "a tensor of shape (3, 10)", "a float"."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


class _Indexed(Dataset[Any]):
    """Adds each example's position and its augmentation."""

    def __init__(self, split: Split, augment: Augment | None, seed: int, view: int) -> None:
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


class _Whole(Dataset[Any]):
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


def _whole(dataset: Any) -> _Whole | None:
    """The dataset, where it is two plain tensors or a part of them; a class that is derived may do anything."""
    if type(dataset) is Subset:
        inner = _whole(dataset.dataset)
        rows = torch.from_numpy(np.array(dataset.indices, dtype=np.int64, order="C"))
        return None if inner is None else _Whole(inner.tensors, inner.rows[rows])
    if type(dataset) is not TensorDataset or len(dataset.tensors) != 2 or not all(map(_plain, dataset.tensors)):
        return None
    return _Whole(dataset.tensors, torch.arange(len(dataset)))


def _plain(tensor: Tensor) -> bool:
    """Whether selecting rows gives to the bit, and in the same layout, what stacking them gives."""
    dense = tensor.device.type == "cpu" and tensor.layout is torch.strided
    return dense and tensor.is_contiguous() and not tensor.requires_grad


def _as_it_is(batch: Any) -> Any:
    return batch


class _Collate:
    """A class and not a closure, so that spawned workers can receive it."""

    def __init__(self, collate: Callable[[list[Any]], tuple[Any, Any]] | None, seed: int, epoch: int) -> None:
        self.collate, self.seed, self.epoch = collate, seed, epoch

    def __call__(self, rows: list[tuple[int, Inputs, Any]]) -> Batch:
        inputs, targets = self._collated([(inputs, target) for _, inputs, target in rows], rows[0][0])
        return Batch(torch.tensor([index for index, _, _ in rows]), as_inputs(inputs), targets)

    def _collated(self, rows: list[Any], index: int) -> tuple[Any, Any]:
        if self.collate is None:  # torch's own draws nothing
            inputs, targets = default_collate(rows)
            return inputs, targets
        with _drawing(self.seed, self.epoch, index):
            return self.collate(rows)


class _Positions(Sampler[int]):
    """These positions."""

    def __init__(self, positions: list[int]) -> None:
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)


def _positions(size: int, order: tuple[int, int] | None, lengths: Tensor | None, batch_size: int) -> Tensor:
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
