"""A small network that tells quadrants apart, as an ONNX file, and its task, with enough validation examples."""

import pytest
import torch
from torch import nn

from pipeline.base.use import Reference
from pipeline.deploy import deploy
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import Split, Task, classification
from tests.contexts import quadrants


def trained() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(4), nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4),
    )  # fmt: skip
    images, labels = quadrants(512, 0, 0.2).tensors
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(60):
        loss = nn.functional.cross_entropy(module(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module.eval()


@pytest.fixture(scope="session")
def task() -> Task:
    parts = [Split(quadrants(count, seed, 0.2)) for seed, count in enumerate((512, 600, 64))]
    return classification(*parts)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, task: Task) -> OnnxModel:
    example = {"input": next(iter(task.train.loader(2))).inputs["input"]}
    model = TorchModel(trained(), example, Reference(use="none"))
    return deploy(model, tmp_path_factory.mktemp("exported") / "net.onnx")  # type: ignore[return-value]
