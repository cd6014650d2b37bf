"""What the last model lost against the baseline: which classes for which, and the worst examples, shown."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.base.batches import Inputs
from pipeline.base.files import file_digest
from pipeline.errors import StageError, blame
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.classes import class_name, tells_classes
from pipeline.records.parts.flipped import Confusion, Example, Flipped
from pipeline.task import Task, kind

MOST_EXAMPLES = 12
MOST_CONFUSIONS = 200  # pairs; a task of a thousand classes has a million
POINTS = 512  # of a curve
PIXELS = 256  # of an image's longer side
NUMBERS = 32  # told as text
CHARACTERS = 1000
TOLERANCE = 0.05  # by which an image may leave 0 to 1 before it is taken for one on another scale


@dataclass(frozen=True)
class Lost:
    """A test example that the model lost, with the class numbers where the task has any."""

    index: int
    target: int | None = None
    expected: int | None = None  # the baseline's class
    predicted: int | None = None


def flipped(task: Task, baseline: Evaluation, last: Evaluation, folder: Path, warn: Callable[[str], None]) -> Flipped:
    """What the record shows of the examples that the last model lost; images are written into `folder`/examples.

    Args:
        task: its test split, labels and `show`.
        baseline, last: evaluated on the test split.
        folder: the run folder.
        warn: told when the task's `show` fails; the example is then shown as if there were none.
    """
    lost = worst_first(baseline, last, task.logits)
    images = folder / "examples"
    shutil.rmtree(images, ignore_errors=True)  # of a run that was killed
    draw = _Drawing(task, images, warn)
    examples = [
        Example(
            index=one.index,
            label=_name(one.target, task),
            baseline=_name(one.expected, task),
            predicted=_name(one.predicted, task),
            baseline_score=float(baseline.scores[one.index]),
            score=float(last.scores[one.index]),
            **draw.shown(one.index),
        )
        for one in lost[:MOST_EXAMPLES]
    ]
    return Flipped(confusions=confusions(lost, task), examples=examples)


def worst_first(baseline: Evaluation, last: Evaluation, logits: bool) -> list[Lost]:
    """The examples on which the last model scores less than the baseline.

    Of classes those first for whose wrong class it is surest, by the difference of its softmax between that class and
    the right one; else those first that lost the most score. Equal ones are in the order of the split.
    """
    drop = (baseline.scores - last.scores).numpy()
    places = np.flatnonzero(drop > 0)
    if last.targets is None or not (tells_classes(baseline, logits) and tells_classes(last, logits)):
        return [Lost(int(i)) for i in places[np.argsort(-drop[places], kind="stable")]]
    at = torch.from_numpy(places)
    shares, target = last.predictions[at].double().softmax(-1), last.targets[at]
    predicted, expected = shares.argmax(-1), baseline.predictions[at].argmax(-1)
    margin = shares.gather(1, torch.stack([predicted, target], 1)) @ torch.tensor([1.0, -1.0], dtype=torch.float64)
    lost_examples = [
        Lost(*numbers) for numbers in zip(*(x.tolist() for x in (at, target, expected, predicted)), strict=True)
    ]
    return [lost_examples[i] for i in np.argsort(-margin.numpy(), kind="stable")]


def confusions(lost: list[Lost], task: Task) -> list[Confusion]:
    """How often each class was taken for each other one, at most `MOST_CONFUSIONS` pairs, the most frequent first."""
    counts = Counter(
        (one.target, one.predicted) for one in lost if one.target is not None and one.predicted is not None
    )
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:MOST_CONFUSIONS]
    return [
        Confusion(label=class_name(target, task.labels), predicted=class_name(predicted, task.labels), count=count)
        for (target, predicted), count in ordered
    ]


def _name(number: int | None, task: Task) -> str | None:
    return None if number is None else class_name(number, task.labels)


@dataclass
class _Drawing:
    """Shows examples of the test split: what is a picture as a PNG file, what is a curve as numbers, else text."""

    task: Task
    folder: Path
    warn: Callable[[str], None]
    warned: bool = False

    def shown(self, index: int) -> dict[str, Any]:
        """The fields of an `Example` that show it."""
        inputs, _ = self.task.test[index]
        value = self._by_the_task(inputs, index)
        if isinstance(value, str):
            return {"kind": "text", "text": _shortened(value)}
        return self._picture(inputs if value is None else {"": value}, index)

    def _by_the_task(self, inputs: Inputs, index: int) -> Tensor | str | None:
        """What the task's own `show` gives; None where there is none or it goes wrong."""
        if self.task.show is None:
            return None
        try:
            with blame(StageError, f"task, show of test example {index}"):
                value = self.task.show(dict(inputs))
                if not isinstance(value, Tensor | str):
                    raise StageError(f"it gave {kind(value)}", expected="text or a tensor")
        except StageError as error:
            if not self.warned:  # once is enough for all examples
                self.warn(str(error))
            self.warned = True
            return None
        return value

    def _picture(self, inputs: Inputs, index: int) -> dict[str, Any]:
        """The first of the inputs that is an image, else the first that is a curve, else all of them as text."""
        for value in inputs.values():
            if is_image(value):
                file = self.folder / f"{index}.png"
                write_png(value, file)
                return {"kind": "image", "file": f"{self.folder.name}/{file.name}", "digest": file_digest(file)}
        for value in inputs.values():
            if is_curve(value):
                return {"kind": "numbers", "numbers": curve(value)}
        return {"kind": "text", "text": _shortened("; ".join(_texts(inputs)))}


def is_image(value: Tensor) -> bool:
    """Whether it is (1 or 3, H, W): of real numbers, or of bytes."""
    has_pixels = value.is_floating_point() or value.dtype is torch.uint8
    return has_pixels and value.ndim == 3 and value.shape[0] in (1, 3) and value.numel() > 0


def is_curve(value: Tensor) -> bool:
    """Whether it is (L,) or (C, L) of two or more real numbers."""
    return value.is_floating_point() and value.ndim in (1, 2) and value.numel() > 0 and value.shape[-1] > 1


def write_png(image: Tensor, path: Path) -> None:
    """Write (1 or 3, H, W) as PNG, at most `PIXELS` wide and high; values outside 0 to 1 are rescaled to it."""
    from PIL import Image

    if image.is_floating_point():
        image = _in_range(image.double().nan_to_num())
        image = (255 * image).round().to(torch.uint8)
    pixels = image.cpu().permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((PIXELS, PIXELS))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def curve(value: Tensor) -> list[float]:
    """The first channel of (L,) or (C, L), at most `POINTS` values at equal distances."""
    line = value.detach().cpu().double().nan_to_num().reshape(-1, value.shape[-1])[0]
    places = torch.linspace(0, len(line) - 1, min(len(line), POINTS)).round().long()
    return [float(f"{number:.6g}") for number in line[places].tolist()]


def _in_range(image: Tensor) -> Tensor:
    low, high = float(image.min()), float(image.max())
    if low >= -TOLERANCE and high <= 1 + TOLERANCE:
        return image.clamp(0, 1)
    return (image - low) / (high - low) if high > low else torch.zeros_like(image)


def _texts(inputs: Inputs) -> Iterator[str]:
    """Each input's numbers, with its name where there are several."""
    for name, value in inputs.items():
        numbers = value.reshape(-1)[:NUMBERS].tolist()
        text = " ".join(f"{number:.4g}" if isinstance(number, float) else str(number) for number in numbers)
        text += " ..." if value.numel() > NUMBERS else ""
        yield f"{name}: {text}" if len(inputs) > 1 else text


def _shortened(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[: CHARACTERS - 4]} ..."
