"""A tiny task that can be learned in a second, a context around it, and a user's folder with the same in files."""

import inspect
import os
import signal
import textwrap
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.deploy import deploy
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.task import Task
from tests import kept as keeping
from tests.contexts import as_target, context_of, quadrants, tiny_task

torch.set_num_threads(1)
# What a shell starts in the background ignores interrupts, and so do all processes that it starts: not those of tests.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def kept_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let all workers keep in one folder what tests/kept.py keeps."""
    worker = tmp_path_factory.getbasetemp()
    folder = (worker.parent if "PYTEST_XDIST_WORKER" in os.environ else worker) / "kept"
    folder.mkdir(exist_ok=True)
    keeping.install(folder)


SLOWEST = (
    "tests/test_readme.py",
    "tests/test_configs.py",
    "tests/test_tutorials.py",
    "tests/pipeline/compare/test_compare.py",
    "tests/pipeline/report/html/test_page_browser.py",
    "tests/test_workflows.py",
    "tests/test_contract.py",
    "tests/stages/prune/test_transformers.py",
    "tests/pipeline/cli/test_layers.py",
    "tests/pipeline/base/test_signals.py",
    "tests/pipeline/test_deploy_axes.py",
    "tests/pipeline/report/mlflow/test_run.py",
    "tests/pipeline/report/mlflow/test_run_sync.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the slowest files begin, so that the processes, which take a file each at a time, end alike."""
    rank = {name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    keeping.Kept.on = not item.get_closest_marker("anew")
    keeping.keep_tables()


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


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What the fixtures of a module make once and keep."""
    return {}


@pytest.fixture(scope="session")
def task() -> Task:
    return tiny_task()


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


DATA = f"""
import torch
from torch.utils.data import TensorDataset
from pipeline.task import Split, classification

{inspect.getsource(quadrants)}
def task(train=256):
    return classification(Split(quadrants(train, 0)), Split(quadrants(64, 1)), Split(quadrants(128, 2)))
"""

MODELS = f"""
import torch
from torch import Tensor, nn

{inspect.getsource(TinyNet)}"""

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
