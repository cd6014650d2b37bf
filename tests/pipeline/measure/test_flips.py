"""What the last model lost: counted, ranked by how sure it is of its mistake, and shown as what it is."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.base.use import find
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.flips import (
    CHARACTERS,
    MOST_EXAMPLES,
    PIXELS,
    POINTS,
    curve,
    flipped,
    is_curve,
    is_image,
    worst_first,
    write_png,
)
from pipeline.records.parts.flipped import Flipped
from pipeline.records.record import Record
from pipeline.runner import run
from pipeline.task import Split, Task, classification
from tests.users import chain_of

CONFIGS = Path(__file__).parents[3] / "configs"
LABELS = ("cat", "dog", "owl")


def logits_of(*shares: tuple[float, float, float]) -> Tensor:
    return torch.tensor(shares).log()


TARGETS = torch.tensor([0, 1, 2, 0, 0])
BASELINE = logits_of((0.8, 0.1, 0.1), (0.2, 0.7, 0.1), (0.1, 0.1, 0.8), (0.1, 0.8, 0.1), (0.9, 0.05, 0.05))
MODEL = logits_of((0.3, 0.4, 0.3), (0.1, 0.1, 0.8), (0.1, 0.2, 0.7), (0.2, 0.7, 0.1), (0.1, 0.7, 0.2))
"""Lost are 0, 1 and 4, with margins of 0.1, 0.7 and 0.6; 3 is wrong in both."""


def evaluation(logits: Tensor, targets: Tensor = TARGETS) -> Evaluation:
    return Evaluation(logits, (logits.argmax(-1) == targets).double(), targets=targets)


def task_of(inputs: Any, **rest: Any) -> Task:
    split = Split([(value, int(target)) for value, target in zip(inputs, TARGETS.repeat(99), strict=False)])
    return classification(split, split, split, **{"labels": LABELS, **rest})


def shown(task: Task, folder: Path, warn: Callable[[str], None] = print) -> Flipped:
    return flipped(task, evaluation(BASELINE), evaluation(MODEL), folder, warn)


def test_the_surest_mistake_comes_first_and_confusions_are_counted(tmp_path: Path) -> None:
    found = shown(task_of(torch.rand(5, 1, 4, 4)), tmp_path)
    assert [one.index for one in found.examples] == [1, 4, 0]
    first = found.examples[0]
    assert (first.label, first.baseline, first.predicted) == ("dog", "dog", "owl")
    assert (first.baseline_score, first.score) == (1.0, 0.0)
    assert [(c.label, c.predicted, c.count) for c in found.confusions] == [("cat", "dog", 2), ("dog", "owl", 1)]


def test_other_scores_are_ranked_by_what_they_lost() -> None:
    ours, theirs = torch.tensor([0.5, 0.1, 0.9, 0.4, 0.0]), torch.tensor([0.6, 0.9, 0.2, 0.4, 0.1])
    lost = worst_first(Evaluation(torch.rand(5), theirs.double()), Evaluation(torch.rand(5), ours.double()), False)
    assert [one.index for one in lost] == [1, 0, 4]
    assert {one.target for one in lost} == {None}


def test_sequences_that_are_right_or_wrong_have_no_classes_and_keep_their_order(tmp_path: Path) -> None:
    words = torch.zeros(5, 7, dtype=torch.int64)
    task = task_of(words, show=None, logits=False, labels=())
    right, wrong = (
        Evaluation(words, torch.ones(5).double()),
        Evaluation(words, torch.tensor([1.0, 0, 1, 0, 1]).double()),
    )
    found = flipped(task, right, wrong, tmp_path, print)
    assert found.confusions == []
    assert [(one.index, one.label, one.predicted) for one in found.examples] == [(1, None, None), (3, None, None)]


def test_no_more_than_the_worst_are_shown_and_none_where_nothing_is_lost(tmp_path: Path) -> None:
    targets = torch.zeros(40, dtype=torch.int64)
    right, wrong = torch.zeros(40, 3), torch.zeros(40, 3)
    right[:, 0], wrong[:, 1] = 1, 1 + torch.arange(40) / 10
    task = task_of(torch.rand(40, 1, 4, 4))
    found = flipped(task, evaluation(right, targets), evaluation(wrong, targets), tmp_path, print)
    assert [one.index for one in found.examples] == list(range(39, 39 - MOST_EXAMPLES, -1))
    assert [c.count for c in found.confusions] == [40]
    assert flipped(task, evaluation(right, targets), evaluation(right, targets), tmp_path, print) == Flipped()
    assert not (tmp_path / "examples").exists()  # those of before are gone


def test_an_image_is_a_png_of_its_pixels(tmp_path: Path) -> None:
    images = torch.arange(5 * 12).reshape(5, 1, 3, 4) / 59
    found = shown(task_of(images), tmp_path)
    assert {one.kind for one in found.examples} == {"image"}
    assert found.examples[0].file == "examples/1.png"
    pixels = np.asarray(Image.open(tmp_path / "examples" / "1.png"))
    np.testing.assert_array_equal(pixels, (255 * images[1, 0]).round().numpy())


@pytest.mark.parametrize(("image", "expected"), [
    (torch.tensor([[[-2.0, 0.0], [0.0, 2.0]]]), [[0, 128], [128, 255]]),
    (torch.tensor([[[0.2, 0.2], [0.6, 0.4]]]), [[51, 51], [153, 102]]),
    (torch.full((1, 2, 2), 7.0), [[0, 0], [0, 0]]),
    (torch.tensor([[[-0.02, 0.5], [1.01, 1.0]]]), [[0, 128], [255, 255]]),
    (torch.tensor([[[0, 3], [200, 255]]], dtype=torch.uint8), [[0, 3], [200, 255]]),
    (torch.tensor([[[float("nan"), 1.0], [0.5, 0.0]]]), [[0, 255], [128, 0]]),
], ids=["rescaled", "from 0 to 1", "of one value", "a little outside", "bytes", "not a number"])  # fmt: skip
def test_values_become_greys(tmp_path: Path, image: Tensor, expected: list[list[int]]) -> None:
    write_png(image, tmp_path / "image.png")
    pixels = np.asarray(Image.open(tmp_path / "image.png")).astype(int)
    assert np.abs(pixels - np.array(expected)).max() <= 1


def test_a_colour_image_keeps_its_channels_and_a_large_one_becomes_smaller(tmp_path: Path) -> None:
    image = torch.zeros(3, 2 * PIXELS, PIXELS)
    image[2] = 1
    write_png(image, tmp_path / "blue.png")
    made = Image.open(tmp_path / "blue.png")
    assert (made.mode, made.size) == ("RGB", (PIXELS // 2, PIXELS))
    assert made.getpixel((5, 5)) == (0, 0, 255)


@pytest.mark.parametrize("shape", [(9,), (1, 9), (2, 9)])
def test_a_curve_is_its_first_channel(tmp_path: Path, shape: tuple[int, ...]) -> None:
    inputs = torch.rand(5, *shape)
    found = shown(task_of(inputs), tmp_path).examples[0]
    assert (found.kind, found.file) == ("numbers", None)
    assert found.numbers == pytest.approx(inputs[1].reshape(-1, 9)[0].tolist(), rel=1e-5)


def test_a_long_curve_keeps_its_ends() -> None:
    points = curve(torch.arange(10_001).float())
    assert (len(points), points[0], points[-1]) == (POINTS, 0, 10_000)
    assert np.diff(points).min() > 0


def test_what_is_neither_is_told_in_numbers(tmp_path: Path) -> None:
    found = shown(task_of(torch.arange(5 * 50).reshape(5, 50)), tmp_path).examples[0]
    assert found.kind == "text"
    assert found.text == " ".join(str(i) for i in range(50, 82)) + " ..."
    several = [{"ids": torch.tensor([4, 5]), "flag": torch.tensor([True])} for _ in range(5)]
    assert shown(task_of(several), tmp_path).examples[0].text == "ids: 4 5; flag: True"
    assert not is_image(torch.zeros(4, 8, 8))
    assert not is_image(torch.zeros(3, 8, 8, dtype=torch.int64))
    assert not is_curve(torch.zeros(1))
    assert not is_curve(torch.zeros(3, 4, 5))


def test_an_image_among_several_inputs_is_what_is_shown(tmp_path: Path) -> None:
    inputs = [{"meta": torch.rand(6), "image": torch.rand(3, 4, 4)} for _ in range(5)]
    assert {one.kind for one in shown(task_of(inputs), tmp_path).examples} == {"image"}


@pytest.mark.parametrize(("given", "expected"), [
    ("a sentence", {"kind": "text", "text": "a sentence"}),
    (torch.zeros(1, 2, 2), {"kind": "image", "file": "examples/1.png"}),
    (torch.tensor([1.0, 2.0]), {"kind": "numbers", "numbers": [1.0, 2.0]}),
    ("x" * 2 * CHARACTERS, {"kind": "text", "text": "x" * (CHARACTERS - 4) + " ..."}),
], ids=["text", "an image", "a curve", "much text"])  # fmt: skip
def test_the_task_says_how_to_show_it(tmp_path: Path, given: Any, expected: dict[str, Any]) -> None:
    found = shown(task_of(torch.rand(5, 1, 4, 4), show=lambda inputs: given), tmp_path).examples[0]
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(("show", "message"), [
    (lambda inputs: inputs["words"], r"task, show of test example 1: KeyError: 'words'"),
    (lambda inputs: 3, r"show of test example 1: it gave a int; expected text or a tensor"),
    (lambda inputs: exit(3), r"show of test example 1: it called sys.exit\(3\)"),
], ids=["raises", "gives something else", "exits"])  # fmt: skip
def test_a_show_that_fails_is_said_once_and_the_example_shown_without(tmp_path: Path, show: Any, message: str) -> None:
    said: list[str] = []
    found = shown(task_of(torch.rand(5, 1, 4, 4), show=show), tmp_path, said.append)
    assert [one.kind for one in found.examples] == ["image"] * 3
    (text,) = said
    assert re.search(message, text)


def test_the_tasks_of_the_configs_tell_their_words() -> None:
    text: Any = find("data.py", CONFIGS / "text")
    task = text.task(train=10, validation=5, test=5)
    words, _ = next(text.sentences(0))
    assert task.show(task.test[0][0]) == " ".join(words)
    assert list(task.labels) == ["very bad", "bad", "good", "very good"]
    translation: Any = find("data.py", CONFIGS / "translation")
    task = translation.task(train=10, validation=5, test=5)
    assert task.show(task.test[0][0]) == str(next(translation.numbers(0)))


TRAINED = "train.supervised, epochs: 4, learning_rate: 0.02"
CHAIN = chain_of("noise.py, strength: 0.3", "look.py", baseline=TRAINED, task="shown.py")
SHOWN = """
from dataclasses import replace
from .data import task as plain

def task(fails=False):
    def show(inputs):
        return 1 / 0
    labels = ["north west", "north east", "south west", "south east"]
    return replace(plain(), labels=labels, show=show if fails else None)
"""


def record_of(chain: Path, **given: Any) -> Record:
    return run(chain, runs=chain.parent / "runs", track=False, **given)


def test_a_run_keeps_what_its_last_model_lost(quick: Callable[..., Path]) -> None:
    record = record_of(quick(CHAIN, **{"shown.py": SHOWN}))
    found, last = record.flipped, record.stages[-1]
    assert last.flips.lost > 3
    assert sum(c.count for c in found.confusions) == last.flips.lost
    assert len(found.examples) == min(last.flips.lost, MOST_EXAMPLES)
    assert {c.label for c in found.confusions} <= {"north west", "north east", "south west", "south east"}
    for one in found.examples:
        assert Image.open(Path(record.folder) / one.file).size == (8, 8)
        assert one.label == one.baseline != one.predicted
    assert [c.label for c in last.classes] == ["north west", "north east", "south west", "south east"]
    assert sum(c.support for c in last.classes) == last.test_samples
    assert Record.load(Path(record.folder)) == record


def test_a_show_that_raises_costs_a_warning_and_not_the_run(quick: Callable[..., Path]) -> None:
    record = record_of(quick(CHAIN, **{"shown.py": SHOWN}), overrides=["task.fails=true"])
    (text,) = [warning for warning in record.warnings if "show of test example" in warning]
    assert "ZeroDivisionError: division by zero" in text
    assert {one.kind for one in record.flipped.examples} == {"image"}


def test_a_limit_on_every_class_says_which_ones_it_cannot_see(quick: Callable[..., Path]) -> None:
    rest = "test.select([i for i in range(128) if int(plain().test[i][1]) != 2])"
    data = SHOWN.replace("plain(), labels", f"plain(), test=plain().{rest}, labels")
    record = record_of(quick(CHAIN + "budget: {worst_class: {min: 0.1}}\n", **{"shown.py": data}))
    assert "budget: worst_class says nothing of south west: the test split has no example of it" in record.warnings
