"""Tensors are taken a batch at a time: the batches must be those that examples one by one and torch's stacking give."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from pipeline.base.batches import Inputs
from pipeline.task import Batch, Split


class OneByOne(TensorDataset):
    """Derived, so that nothing can be taken for granted: read by the general way."""


def tensors(inputs: Tensor, count: int = 23) -> tuple[Tensor, Tensor]:
    return inputs, torch.arange(count) * 3


IMAGES = torch.rand(23, 3, 4, 5, generator=torch.Generator().manual_seed(0))
INPUTS = {
    "images": IMAGES,
    "one channel": IMAGES[:, :1].contiguous(),
    "numbers": torch.arange(23.0),
    "bytes": (IMAGES * 255).to(torch.uint8),
    "half": IMAGES.half(),
    "channels last": IMAGES.to(memory_format=torch.channels_last),
    "transposed": IMAGES.transpose(1, 3),
    "strided": IMAGES[..., ::2],
    "expanded": torch.rand(1, 4).expand(23, 4),
}
PARTS: dict[str, Any] = {
    "whole": lambda data: data,
    "part": lambda data: Subset(data, [5, 3, 22, 0, 3, 8, 9, 10, 11]),
    "part from the end": lambda data: Subset(data, [-1, -23, 4, -2]),
    "part of a part": lambda data: Subset(Subset(data, list(range(22, 1, -1))), [7, -1, 0, 2, 3, 12, 13]),
    "a range": lambda data: Subset(data, range(3, 19)),
    "positions in an array": lambda data: Subset(data, np.arange(15)[::-1]),
}


def same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert list(a.inputs) == list(b.inputs) == ["input"]
        for mine, other in ((a.index, b.index), (a.inputs["input"], b.inputs["input"]), (a.targets, b.targets)):
            assert mine.dtype == other.dtype
            assert mine.stride() == other.stride()
            assert torch.equal(mine, other)


@pytest.mark.parametrize("options", [{}, {"order": (3, 5)}, {"order": (3, 5), "skip": 1}, {"seed": 4, "view": 2}])
@pytest.mark.parametrize("part", PARTS)
def test_parts_of_tensors(part: str, options: dict[str, Any]) -> None:
    ours, theirs = (Split(PARTS[part](kind(*tensors(IMAGES)))) for kind in (TensorDataset, OneByOne))
    same(list(ours.loader(2, **options)), list(theirs.loader(2, **options)))


@pytest.mark.parametrize("inputs", INPUTS)
def test_any_kind_of_tensor(inputs: str) -> None:
    ours, theirs = (Split(kind(*tensors(INPUTS[inputs]))) for kind in (TensorDataset, OneByOne))
    same(list(ours.loader(5)), list(theirs.loader(5)))


def test_in_another_process() -> None:
    split = Split(Subset(TensorDataset(*tensors(IMAGES)), [5, 3, 22, 0]))
    same(list(split.loader(2, workers=1)), list(split.loader(2)))


def test_a_batch_is_a_copy() -> None:
    inputs, targets = tensors(IMAGES.clone())
    for batch in Split(TensorDataset(inputs, targets)).loader(23):
        batch.inputs["input"].zero_()
        batch.targets.zero_()
    assert torch.equal(inputs, IMAGES)
    assert torch.equal(targets, torch.arange(23) * 3)


class Halves(TensorDataset):
    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(tensor / 2 for tensor in super().__getitem__(index))


def test_a_derived_dataset_is_asked_for_each_example() -> None:
    inputs, targets = tensors(IMAGES)
    batch = next(iter(Split(Subset(Halves(inputs, targets), [4, 1])).loader(2)))
    assert torch.equal(batch.inputs["input"], inputs[[4, 1]] / 2)
    assert batch.targets.tolist() == [6.0, 1.5]


def test_a_collate_of_the_users_and_an_augmentation_see_each_example() -> None:
    split = TensorDataset(*tensors(IMAGES, 23))
    shown: list[int] = []

    def pairs(rows: list[tuple[Inputs, Tensor]]) -> tuple[Tensor, Tensor]:
        shown.append(len(rows))
        return torch.stack([inputs["input"] for inputs, _ in rows]) + 1, torch.stack([target for _, target in rows])

    batch = next(iter(Split(split, collate=pairs).loader(4)))
    assert torch.equal(batch.inputs["input"], IMAGES[:4] + 1)
    assert shown == [4]
    turned = next(iter(Split(split).loader(4, augment=lambda inputs, seed, view: {"input": -inputs["input"]})))
    assert torch.equal(turned.inputs["input"], -IMAGES[:4])


def drawn() -> Tensor:
    """From each global generator."""
    return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])


class Noise:
    """Draws when it is read."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return drawn(), index


def drawing(inputs: Inputs, seed: int, view: int) -> Inputs:
    return {"input": inputs["input"], "drawn": drawn()}


def views(batch_size: int, split: Split, **options: Any) -> dict[str, Tensor]:
    batches = list(split.loader(batch_size, order=(1, 2), **options))
    order = torch.cat([batch.index for batch in batches]).argsort()
    return {name: torch.cat([batch.inputs[name] for batch in batches])[order] for name in batches[0].inputs}


def test_what_an_augmentation_draws_depends_on_its_example_and_disturbs_no_dataset_that_draws() -> None:
    split = Split(Noise())
    small, large = (views(size, split, augment=drawing) for size in (3, 6))
    assert torch.equal(small["drawn"], large["drawn"])
    assert len(small["drawn"].unique(dim=0)) == 12
    assert torch.equal(small["input"], views(3, split)["input"])
    assert not torch.equal(small["drawn"], views(3, split, view=9, augment=drawing)["drawn"])


@pytest.mark.parametrize("dataset", [TensorDataset(*tensors(IMAGES)), OneByOne(*tensors(IMAGES)), Noise()])
@pytest.mark.parametrize("augment", [None, drawing])
def test_loading_leaves_the_generators_as_they_were(dataset: Any, augment: Any) -> None:
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    expected = drawn()
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    list(Split(dataset).loader(4, order=(0, 0), augment=augment))
    assert torch.equal(drawn(), expected)


def ragged(count: int) -> Split:
    """Examples of 1 to 50 numbers, all alike in one, padded to the longest of a batch."""
    lengths = torch.randint(1, 51, (count,), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [(torch.full((length,), i), i) for i, length in enumerate(lengths)]

    def pad(batch: list[Any]) -> Any:
        inputs = [given["input"] for given, _ in batch]
        return {"input": torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True)}, torch.tensor([y for _, y in batch])

    return Split(rows, pad, lengths=lengths)


def test_similar_examples_are_shuffled_together_and_each_comes_once() -> None:
    split = ragged(1000)
    batches = list(split.loader(16, order=(0, 1), similar=True))
    assert len(batches) == 1000 // 16
    seen = torch.cat([batch.index for batch in batches]).tolist()
    assert len(set(seen)) == len(seen) == 992
    for batch in batches:
        assert batch.inputs["input"][:, 0].tolist() == batch.index.tolist()
    widths = [batch.inputs["input"].shape[1] for batch in batches]
    plain = [batch.inputs["input"].shape[1] for batch in split.loader(16, order=(0, 1))]
    assert sum(widths) < 0.65 * sum(plain)
    half = len(widths) // 2
    assert abs(sum(widths[:half]) - sum(widths[half:])) < 0.2 * sum(widths)  # short and long ones through the epoch
    assert widths != sorted(widths)


def test_the_order_of_similar_examples_depends_on_seed_and_epoch_and_can_be_skipped_into() -> None:
    split = ragged(300)

    def order(seed: int, epoch: int, skip: int = 0) -> list[int]:
        loader = split.loader(8, order=(seed, epoch), similar=True, skip=skip)
        return [i for batch in loader for i in batch.index.tolist()]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 1)
    assert order(0, 3, skip=5) == order(0, 3)[5 * 8 :]


def test_in_turn_similar_examples_stay_near_their_place() -> None:
    split = ragged(1100)
    index = torch.cat([batch.index for batch in split.loader(16, similar=True)])
    assert sorted(index.tolist()) == list(range(1100))
    for start in range(0, 1100, 16 * 32):
        part = index[start : start + 16 * 32]
        assert sorted(part.tolist()) == list(range(start, min(start + 16 * 32, 1100)))
        assert [split.lengths[i] for i in part] == sorted(split.lengths[i] for i in part)  # type: ignore[index]


def test_where_no_lengths_are_known_similar_changes_nothing() -> None:
    plain = replace(ragged(100), lengths=None)
    for order in (None, (0, 1)):
        one, other = (
            [i for batch in plain.loader(8, order=order, similar=similar) for i in batch.index.tolist()]
            for similar in (False, True)
        )
        assert one == other


def test_chosen_examples_keep_their_lengths() -> None:
    split = ragged(10)
    assert split.select([7, 2]).lengths == [split.lengths[7], split.lengths[2]]  # type: ignore[index]
