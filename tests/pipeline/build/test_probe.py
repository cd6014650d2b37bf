"""Data that cannot work is refused before any work, with the split and the example."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate

from pipeline.base.batches import Outputs
from pipeline.build.probe import example_inputs, probe, see, varies, varying
from pipeline.build.trial import try_out
from pipeline.errors import ConfigError, Note
from pipeline.model import TorchModel
from pipeline.task import Split, Task, cross_entropy
from tests.aliases import Make


def split(task: Task, name: str) -> tuple[Tensor, Tensor]:
    chosen = getattr(task, name)
    pairs = [chosen[i] for i in range(len(chosen))]
    return torch.stack([p[0]["input"] for p in pairs]), torch.tensor([int(p[1]) for p in pairs])


def with_split(task: Task, name: str, images: Tensor, labels: Any) -> Task:
    return replace(task, **{name: Split(TensorDataset(images, labels))})


def refused(task: Task, model: TorchModel, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        try_out(task, model, probe(task))


def test_a_good_task_passes(task: Task, tiny: Make) -> None:
    seen = probe(task)
    try_out(task, tiny(), seen)
    assert {name: len(s.hashes) for name, s in seen.items()} == {name: len(s) for name, s in task.splits.items()}


@pytest.mark.parametrize("name", ["train", "calibration", "validation", "test"])
def test_an_empty_split_is_named(task: Task, tiny: Make, name: str) -> None:
    empty = with_split(task, name, torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    refused(empty, tiny(), f"task: the {name} split is empty; expected at least one example")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_named_with_their_example(task: Task, tiny: Make, value: float) -> None:
    images, labels = split(task, "validation")
    images[7, 0, 3, 3] = value
    message = "task, validation example 7: input `input` holds NaN or infinity; expected finite inputs"
    refused(with_split(task, "validation", images, labels), tiny(), message)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
@pytest.mark.parametrize("label", [4, -1, 10**6])
def test_labels_out_of_range_are_named_with_their_example(task: Task, tiny: Make, name: str, label: int) -> None:
    images, labels = split(task, name)
    labels[11] = label
    message = f"task, {name} example 11: a label is {label}, and the model gives 4 logits; expected labels from 0 to 3"
    refused(with_split(task, name, images, labels), tiny(), message)


def test_a_loss_of_the_users_may_count_classes_in_another_way(task: Task, tiny: Make) -> None:
    def from_one(outputs: Outputs, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets - 1)

    ones = {name: with_labels(split, 1) for name, split in task.splits.items()}
    assert try_out(replace(task, **ones, loss=from_one), tiny(), probe(task))[1] == []  # type: ignore[arg-type]


@pytest.mark.parametrize(("labels", "told"), [
    ((), ["task: the model gives 4 logits, and no label is above 1: 2 classes never occur, or its head was made for "
          "other data"]),
    ("abcd", []),
])  # fmt: skip
def test_too_many_classes_of_a_head_are_noted(task: Task, tiny: Make, labels: tuple[str, ...], told: list[str]) -> None:
    two = {name: with_labels(split, 0, 2) for name, split in task.splits.items()}
    halved = replace(task, **two, labels=labels)  # type: ignore[arg-type]
    assert try_out(halved, tiny(), probe(halved))[1] == told


def with_labels(split: Split, first: int, modulus: int = 10) -> Split:
    """The same examples with their labels modulo a number, counted from `first`."""
    rows = [split[i] for i in range(len(split))]
    return Split([(inputs, target % modulus + first) for inputs, target in rows])


@pytest.mark.parametrize(("name", "position"), [("train", 17), ("calibration", 3), ("validation", 60)])
def test_an_overlap_with_test_is_refused_with_its_positions(task: Task, tiny: Make, name: str, position: int) -> None:
    images, labels = split(task, name)
    images[position] = task.test[5][0]["input"]
    message = (
        rf"1 of {len(images)} {name} examples are also in test \(test 5 = {name} {position}\).*Leave them out of {name}"
    )
    refused(with_split(task, name, images, labels), tiny(), message)


def test_test_as_validation_is_refused(task: Task, tiny: Make) -> None:
    message = r"128 of 128 validation examples are also in test \(test 0 = validation 0, "
    refused(replace(task, validation=task.test), tiny(), message)


def graded(outputs: dict[str, Tensor], targets: Tensor) -> Any:
    return torch.nn.functional.cross_entropy(outputs["output"], targets, reduction="none")


@pytest.mark.parametrize(("changes", "message"), [
    ({"loss": graded}, r"loss gave a tensor of shape \(\d,\); expected a scalar tensor\. Reduce it"),
    ({"loss": lambda o, t: 0.5}, "loss gave a float; expected a scalar tensor"),
    ({"loss": lambda o, t: o["output"].sum() * float("nan")}, "loss gave nan; expected a finite number"),
    ({"loss": lambda o, t: o["logits"].sum()}, "KeyError: 'logits'"),
    ({"score": lambda p, t: (p.argmax(-1) == t).float().mean()}, r"score gave a tensor of shape \(\);"),
    ({"score": lambda p, t: 1.0}, "score gave a float"),
    ({"decode": lambda f, i: f({"x": i["input"]}).values()}, "decode gave a dict_values; expected logits"),
    ({"decode": lambda f, i: f(i)["output"][:, 0]}, r"decode gave a tensor of shape \(\d,\); expected logits"),
    ({"metrics": {"f1": lambda p, t: 1 / 0}}, "metric `f1`: ZeroDivisionError"),
    ({"labels": ("one", "two")}, "`labels` has 2 names; expected a name for each of the 4 classes of the logits"),
])  # fmt: skip
def test_a_misshapen_loss_or_score_is_refused(task: Task, tiny: Make, changes: dict[str, Any], message: str) -> None:
    refused(replace(task, **changes), tiny(), message)


def test_a_dataset_that_raises_is_named_with_its_example(task: Task, tiny: Make) -> None:
    class Broken(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            if index == 2:
                raise OSError("the file is gone")
            return super().__getitem__(index)

    broken = Split(Broken(*split(task, "validation")))
    refused(replace(task, validation=broken), tiny(), "task, validation example 2: OSError: the file is gone")


def test_an_input_that_is_no_tensor_is_named(task: Task, tiny: Make) -> None:
    words = Split([({"text": "a word"}, 0), ({"text": "another"}, 1)])  # type: ignore[arg-type]
    refused(replace(task, train=words), tiny(), "task, train example 0: input `text` is a str; expected a tensor")


def test_a_sighting_points_at_the_extreme_labels(task: Task) -> None:
    images, labels = split(task, "validation")
    labels[:] = 1
    labels[9], labels[20] = 3, 0
    assert see("validation", Split(TensorDataset(images, labels))).extremes == [0, 9, 20]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 3)])
def test_inputs_of_any_type_and_shape_are_seen(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    rows = [({"x": torch.full(shape, i, dtype=dtype)}, 0) for i in (0, 1)]
    hashes = see("train", Split(rows)).hashes  # type: ignore[arg-type]
    assert (hashes[0] != hashes[1]) == bool(rows[0][0]["x"].numel())


def digest(rows: list[Any], **rest: Any) -> str:
    return see("train", Split(rows, **rest)).digest  # type: ignore[arg-type]


LONG = torch.arange(5000).float()
ONE = torch.ones(2)


@pytest.mark.parametrize(("one", "other"), [
    ((ONE, 0), (ONE, 1)),
    ((ONE, 0), (ONE * 2, 0)),
    (({"a": ONE}, 0), ({"b": ONE}, 0)),
    ((ONE, 0), (ONE.double(), 0)),
    ((ONE, torch.tensor(0.1)), (ONE, torch.tensor(0.1000001))),
    ((ONE, LONG), (ONE, LONG + (LONG == 2500))),
    ((ONE, {"boxes": LONG}), (ONE, {"boxes": LONG + (LONG == 2500)})),
    ((ONE, [LONG.numpy()]), (ONE, [(LONG + (LONG == 2500)).numpy()])),
    ((ONE, "a"), (ONE, "b")),
], ids=["label", "input", "name", "type", "float", "long", "dictionary", "array", "text"])  # fmt: skip
def test_the_digest_tells_any_change_apart(one: Any, other: Any) -> None:
    assert digest([one]) == digest([one])
    assert digest([one]) != digest([other])


def test_the_digest_depends_on_the_order_and_on_a_fingerprint() -> None:
    rows = [(ONE, 0), (ONE * 2, 1)]
    assert digest(rows) != digest(rows[::-1])
    assert digest(rows, fingerprint="a") != digest(rows, fingerprint="b")


def test_an_example_has_two_rows_even_of_a_split_of_one() -> None:
    assert example_inputs(Split([(ONE, 0)]))["input"].shape == (2, 2)  # type: ignore[arg-type]


def test_messages_do_not_run_on(task: Task, tiny: Make) -> None:
    with pytest.raises(ConfigError) as caught:
        probe(replace(task, train=task.test))
    assert len(re.findall("test \\d+ = train", str(caught.value))) == 1
    assert len(str(caught.value)) < 300


class Shifting(TensorDataset):
    """Images that come with other noise each time, one in `every` of them."""

    every = 1

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return image + (torch.rand(()) if index % self.every == 0 else 0), label


class SeldomShifting(Shifting):
    every = 4


def drawing(rows: list[Any]) -> Any:
    inputs, labels = default_collate(rows)
    return {"input": inputs["input"] * torch.rand(())}, labels


def masking(rows: list[Any]) -> Any:
    inputs, labels = default_collate(rows)
    return {"input": inputs["input"], "mask": torch.full((len(rows), 3), -torch.inf)}, labels


@pytest.mark.parametrize(("kind", "collate", "expected"), [
    (TensorDataset, None, False), (TensorDataset, default_collate, False), (TensorDataset, masking, False),
    (Shifting, None, True), (SeldomShifting, None, True), (TensorDataset, drawing, True),
])  # fmt: skip
def test_examples_and_batches_that_differ_when_read_again_are_found(
    task: Task, kind: Any, collate: Any, expected: bool
) -> None:
    images, labels = split(task, "train")
    made = Split(kind(images, labels), collate)
    assert varies("train", made, see("train", made)) is expected


@pytest.mark.parametrize(("names", "kind"), [((), None), (("train",), Note), (("train", "test"), str)])
def test_what_varies_is_said_once(task: Task, names: tuple[str, ...], kind: Any) -> None:
    told = varying(replace(task, **{name: replace(getattr(task, name), varies=True) for name in names}))
    assert [type(text) for text in told] == ([kind] if kind else [])
    assert all(f"examples of {', '.join(names)} are other ones" in text for text in told)
