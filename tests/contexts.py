"""The tiny task and a context on it, for fixtures and for child processes, which no fixture reaches."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from pipeline.base.batches import Inputs
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError
from pipeline.model import TorchModel
from pipeline.task import Sealed, Split, Task, classification


def quadrants(count: int, seed: int, brighter: float = 0.4) -> TensorDataset:
    """Noisy 8x8 images; the class is the brighter quadrant."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = torch.rand(count, 1, 8, 8, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += brighter
    return TensorDataset(images, labels)


def tiny_task() -> Task:
    return classification(
        train=Split(quadrants(256, 0)), validation=Split(quadrants(64, 1)), test=Split(quadrants(128, 2))
    )


def as_target(inputs: Inputs, tokens: Tensor) -> tuple[Inputs, Tensor]:
    return inputs, tokens[0].long()


@contextmanager
def silent(description: str, total: int) -> Iterator[Callable[..., None]]:
    yield lambda steps=1, note=None: None


def context_of(task: Task, directory: Path, **changes: Any) -> Context:
    """A context on a task for a stage that deploys nothing; changes of what the task has are changes of the task."""
    of_task = {field.name: changes.pop(field.name) for field in fields(Task) if field.name in changes}
    defaults: dict[str, Any] = {
        "baseline": None,
        "device": torch.device("cpu"),
        "seed": 0,
        "log": logging.getLogger("shrinkline"),
        "progress": silent,
        "report": lambda name, value: None,
        "deployed": lambda model: model,
    }
    return Context(replace(task, **of_task), directory=directory, **{**defaults, **changes})


def bare_context(directory: Path, **changes: Any) -> Context:
    """A context on the tiny task for a stage that trains and deploys nothing."""
    return context_of(tiny_task(), directory, **changes)


def reporting_context(directory: Path, data: Split, **changes: Any) -> tuple[Context, dict[str, Any]]:
    """A context on data, all of its splits alike, and what is reported to it.

    In the reports, `progress` is the name of a wait, its total, the steps that it came, and in how many parts.
    """
    reports: dict[str, Any] = {}

    @contextmanager
    def progress(description: str, total: int) -> Iterator[Callable[..., None]]:
        steps: list[int] = []
        yield lambda n, note="": steps.append(n)
        reports["progress"] = (description, total, sum(steps), len(steps))

    task = classification(data, data, data, calibration=data)
    return context_of(task, directory, progress=progress, report=reports.__setitem__, **changes), reports


def preview_of(model: Any, examples: int = 256, **changes: Any) -> Preview:
    """A preview of a task with as many examples in each split, none of which can be read."""
    data = Split(Sealed(examples))
    return Preview(model, replace(classification(data, data, data, calibration=data, as_target=as_target), **changes))


def refused(message: str, checks: Iterable[str], error: type[Exception] = ConfigError) -> None:
    """Have what a stage checks before any work raise an error with this message."""
    with pytest.raises(error, match=message):
        list(checks)


def saved_tiny(directory: Path) -> TorchModel:
    """What the fixture `tiny` made and a test saved."""
    return TorchModel.load(directory, Path(__file__).parent)


class Table:
    """A model that looks its outputs up: input i gives row i."""

    form = "torch"

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def predict(self, inputs: Inputs) -> Inputs:
        return {"output": self.rows[inputs["input"][:, 0]]}
