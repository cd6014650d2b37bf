"""A tiny task that can be learned in a second, a context around it, and a user's folder with the same in files."""

import logging
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference
from pipeline.deploy import deploy
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.stage import Context
from pipeline.task import Split, Task, classification

torch.set_num_threads(1)


def quadrants(count: int, seed: int) -> TensorDataset:
    """Noisy 8x8 images; the class is the brighter quadrant."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = torch.rand(count, 1, 8, 8, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += 0.4
    return TensorDataset(images, labels)


class TinyNet(nn.Module):
    """Two convolutions and a linear head: (N, 1, 8, 8) -> (N, 4)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def answers(module: nn.Module, inputs: Inputs, beams: int, max_tokens: int | None) -> Tensor:
    """What a classifier would generate: its best class, as a sequence (N, 1, 1) of one token."""
    with torch.no_grad():
        return module(inputs["input"]).argmax(-1)[:, None, None]


def as_target(inputs: Inputs, tokens: Tensor) -> tuple[Inputs, Tensor]:
    return inputs, tokens[0].long()


@pytest.fixture(scope="session")
def task() -> Task:
    return classification(
        train=Split(quadrants(256, 0)), validation=Split(quadrants(64, 1)), test=Split(quadrants(128, 2))
    )


@pytest.fixture
def tiny(task: Task) -> Callable[..., TorchModel]:
    """tiny(width=8, seed=0): an untrained model of that width."""

    def make(width: int = 8, seed: int = 0) -> TorchModel:
        torch.manual_seed(seed)
        builder = Reference(use="conftest.py:TinyNet", arguments={"width": width}, folder=Path(__file__).parent)
        return TorchModel.build(builder, example(task))

    return make


def example(task: Task) -> Inputs:
    return {"input": torch.stack([task.train[i][0]["input"] for i in range(2)])}


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


@pytest.fixture
def context(task: Task, tmp_path: Path) -> Callable[..., Context]:
    """context(**changes): a Context on the tiny task with a folder of its own; its reports are in `context.reports`."""
    reports: dict[str, Any] = {}

    def deployed(model: Model) -> OnnxModel:
        return model if isinstance(model, OnnxModel) else deploy(model, tmp_path / "deployed" / f"{id(model)}.onnx")

    def make(**changes: Any) -> Context:
        directory = next(path for n in count() if not (path := tmp_path / f"work{n or ''}").exists())
        if "directory" not in changes:
            directory.mkdir()
        defaults = {"directory": directory, "report": reports.__setitem__, "deployed": deployed}
        return context_of(**{"task": replace(task, as_target=as_target), **defaults, **changes})

    make.reports = reports  # type: ignore[attr-defined]
    return make


DATA = """
import torch
from torch.utils.data import TensorDataset
from pipeline.task import Split, classification

def quadrants(count, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = torch.rand(count, 1, 8, 8, generator=generator)
    for image, label in zip(images, labels.tolist()):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += 0.4
    return TensorDataset(images, labels)

def task(train=256):
    return classification(Split(quadrants(train, 0)), Split(quadrants(64, 1)), Split(quadrants(128, 2)))
"""

MODELS = """
import torch
from torch import nn

class TinyNet(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width * 4, 4)

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))
"""

CHAIN = """
task: {use: data.py}
model: {use: models.py:TinyNet, width: 16}
baseline:
  - {use: train.supervised, epochs: 2, learning_rate: 0.01}
stages:
  - {use: distill.logits, student: {use: models.py:TinyNet, width: 8}, epochs: 2, learning_rate: 0.01}
  - {use: export.onnx}
"""


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """project(chain=..., **{"file.py": text}): a user's folder; gives the path of its pipeline file."""

    def make(chain: str = CHAIN, **files: str) -> Path:
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        for name, text in {"data.py": DATA, "models.py": MODELS, "chain.yaml": chain, **files}.items():
            (folder / name).write_text(textwrap.dedent(text))
        return folder / "chain.yaml"

    return make
