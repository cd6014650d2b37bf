"""Batches of other lengths: found in the data before any work, and joined."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pipeline.base.use import Reference
from pipeline.build.lengths import differing
from pipeline.build.probe import example_inputs, probe, see
from pipeline.build.trial import try_out
from pipeline.errors import ConfigError, StageError
from pipeline.measure.accuracy import evaluate_task, joined
from pipeline.measure.agreement import agreement
from pipeline.model import TorchModel
from pipeline.task import Split, Task, classification

AXES = {"ids": {1: "tokens"}, "mask": {1: "tokens"}}


class Texts:
    """Ids of 2 to 9 tokens; the shortest is the fourth, the longest the second."""

    def __init__(self, seed: int, lengths: tuple[int, ...] = (5, 9, 3, 2, 7, 2, 9)) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.rows = [torch.randint(1, 10**6, (length,), generator=generator) for length in lengths]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        return {"ids": self.rows[index]}, self.rows[index] % 3


def collate(rows: list[Any]) -> tuple[dict[str, Tensor], Tensor]:
    ids = pad_sequence([inputs["ids"] for inputs, _ in rows], batch_first=True)
    targets = pad_sequence([target for _, target in rows], batch_first=True, padding_value=-100)
    return {"ids": ids, "mask": (ids > 0).long()}, targets


class Tagger(nn.Module):
    """Logits (N, T, 3) for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.scale * nn.functional.one_hot(ids % 3, 3) * mask[..., None]


def loss(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs["output"].flatten(0, 1), targets.flatten())


def score(predictions: Tensor, targets: Tensor) -> Tensor:
    counted = targets >= 0
    return ((predictions.argmax(-1) == targets) & counted).sum(1) / counted.sum(1)


def tagging(**changes: Any) -> Task:
    splits = [Split(Texts(seed), collate) for seed in range(3)]
    return replace(Task(*splits, loss=loss, score=score, logits=True, axes=AXES), **changes)


def tagger(task: Task) -> TorchModel:
    return TorchModel(Tagger(), example_inputs(task.train), Reference(use="test_lengths.py:Tagger"), axes=task.axes)


def refused(task: Task, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        try_out(task, tagger(task), probe(task))


def test_the_shortest_and_the_longest_example_are_seen() -> None:
    assert see("train", Split(Texts(0), collate)).ends == (3, 1)


def trimmed(rows: list[Any]) -> tuple[dict[str, Tensor], Tensor]:
    inputs, targets = collate(rows)
    used = int(inputs["mask"].sum(1).max())
    return {name: value[:, :used] for name, value in inputs.items()}, targets[:, :used]


class Padded(Texts):
    def __getitem__(self, index: int) -> tuple[dict[str, Tensor], Tensor]:
        inputs, target = super().__getitem__(index)
        missing = (0, 9 - len(target))
        return {"ids": nn.functional.pad(inputs["ids"], missing)}, nn.functional.pad(target, missing, value=-100)


def test_lengths_that_collate_cuts_are_seen() -> None:
    split = Split(Padded(0), trimmed)
    assert see("train", split).ends == (3, 1)
    refused(tagging(train=split, axes={}), r"axis 1 of `ids` is 2 long in a batch of short examples and 9")


def test_named_axes_pass() -> None:
    task = tagging()
    try_out(task, tagger(task), probe(task))


def test_an_axis_that_is_not_named_is_refused_with_what_to_write() -> None:
    message = (
        r"task, train examples \[3, 1\]: axis 1 of `ids` is 2 long in a batch of short examples and 9 in one of long "
        r"examples; expected one length in all batches, or the axis in the task's `axes`\. Give the Task "
        r"axes=\{'ids': \{1: 'length'\}, 'mask': \{1: 'length'\}\}, or let collate fill up to one length\."
    )
    refused(tagging(axes={}), message)
    message = r"Give the Task axes=\{'ids': \{1: 'tokens'\}, 'mask': \{1: 'length'\}"
    refused(tagging(axes={"ids": {1: "tokens"}}), message)


@pytest.mark.parametrize(("axes", "message"), [
    ({"idx": {1: "tokens"}}, r"`axes` names an input `idx`; expected one of ids, mask"),
    ({"ids": {2: "tokens"}}, r"`axes` names axis 2 of `ids`, whose batch is a tensor of shape \(2, 2\)"),
    ({"ids": {0: "tokens"}}, "names axis 0 of `ids`.*expected an axis beside the batch"),
])  # fmt: skip
def test_axes_that_are_not_there_are_refused(axes: Any, message: str) -> None:
    refused(tagging(axes=axes), message)


def longer(rows: list[Any]) -> tuple[dict[str, Tensor], Tensor]:
    inputs, targets = collate(rows)
    return {**inputs, "mask": nn.functional.pad(inputs["mask"], (0, 1))}, targets


def test_equal_names_are_equal_lengths() -> None:
    message = "axis 1 of `mask` is 3 long and another axis `tokens` 2; expected equal lengths for equal names"
    refused(tagging(train=Split(Texts(0), longer)), message)


@pytest.mark.parametrize("name", ["batch", "max tokens", ""])
def test_a_name_that_no_file_could_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"`axes` has the name `{name}`"):
        tagging(axes={"ids": {1: name}})


def test_examples_of_other_lengths_without_a_collate_are_refused() -> None:
    task = tagging(train=Split(Texts(0)), axes={})
    with pytest.raises(ConfigError, match="task, train examples"):
        try_out(task, tagger(tagging()), probe(task))


def test_lengths_that_change_together_share_a_name() -> None:
    short = {"a": torch.zeros(2, 3, 5), "b": torch.zeros(2, 3), "c": torch.zeros(2, 4)}
    long = {"a": torch.zeros(2, 8, 6), "b": torch.zeros(2, 8), "c": torch.zeros(2, 4)}
    assert differing(short, long) == {"a": {1: "length", 2: "length_2"}, "b": {1: "length"}}


def counted(predictions: Tensor, targets: Tensor) -> float:
    assert predictions.shape == (*targets.shape, 3)
    assert bool((predictions[targets == -100] != 1).all())
    return float((targets >= 0).sum())


def test_predictions_and_targets_of_any_length_are_joined_for_metrics() -> None:
    task = tagging(metrics={"tokens": counted})
    found = evaluate_task(tagger(task), task, task.test, batch=2)
    assert (found.predictions.shape, found.metrics["tokens"].value) == ((7, 9, 3), 37)
    assert found.scores.tolist() == [1.0] * 7
    assert bool((found.predictions[6:, :, 0] > -100).all())  # the last batch is the longest
    assert bool((found.predictions[2, 3:] == -100).all())


def test_what_is_joined_is_filled_up_at_its_ends() -> None:
    made = joined([torch.ones(2, 1, 3, dtype=torch.int32), torch.ones(1, 4, 2, dtype=torch.int32)], -1)
    assert (made.shape, made.dtype) == ((3, 4, 3), torch.int32)
    assert [int((made[i] == 1).sum()) for i in range(3)] == [3, 3, 8]
    assert int((made == -1).sum()) == 36 - 14
    assert torch.equal(joined([torch.ones(2, 3), torch.zeros(1, 3)]), torch.tensor([[1.0] * 3] * 2 + [[0.0] * 3]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_a_type_that_cannot_hold_the_fill_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(StageError, match=r"differ in length and `fill` is -100.*Set `fill` in the Task"):
        joined([torch.ones(2, 3, dtype=dtype), torch.ones(2, 4, dtype=dtype)])


def test_parts_of_other_numbers_of_axes_are_refused() -> None:
    with pytest.raises(StageError, match="expected the same number of axes"):
        joined([torch.ones(2, 3), torch.ones(2)])


def test_sequences_agree_where_the_longer_one_has_only_fill_more() -> None:
    ours = torch.tensor([[1, 2, -100], [1, 2, 3], [4, 5, -100]])
    assert agreement(ours, torch.tensor([[1, 2], [1, 2], [4, 6]]), None) == pytest.approx(1 / 3)


def test_an_output_that_is_named_is_decoded_and_trained_on() -> None:
    split = Split(Texts(0), collate)
    named = classification(split, split, split, output="b")
    logits, other = torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.zeros(2, 2)
    assert torch.equal(named.decode(lambda inputs: {"a": other, "b": logits}, {}), logits)
    expected = -(logits[:, 0] - logits.logsumexp(-1)).mean()
    assert named.loss({"a": other, "b": logits}, torch.tensor([0, 0])).item() == pytest.approx(expected.item())
    message = "the model gives no output `b`; expected `output` to be one of those that it gives: a, c"
    with pytest.raises(ConfigError, match=message):
        named.loss({"a": other, "c": logits}, torch.tensor([0, 0]))
    again = replace(named, output="a")  # what was made for another output is made anew
    assert torch.equal(again.decode(lambda inputs: {"a": other, "b": logits}, {}), other)
