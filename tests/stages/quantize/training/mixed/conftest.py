"""A small network that tells quadrants apart, and its task, with enough validation examples to keep a score on."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.base.use import Reference
from pipeline.model import TorchModel
from pipeline.task import Split, Task, classification
from tests.contexts import quadrants


@pytest.fixture(scope="session")
def task() -> Task:
    return classification(*(Split(quadrants(count, seed, 0.2)) for seed, count in enumerate((512, 600, 64))))


@pytest.fixture(scope="session")
def learned(task: Task) -> TorchModel:
    torch.manual_seed(0)
    builder = Reference(use="conftest.py:TinyNet", arguments={"width": 8}, folder=Path(__file__).parents[4])
    model = TorchModel.build(builder, {"input": next(iter(task.train.loader(2))).inputs["input"]})
    images, labels = quadrants(512, 0, 0.2).tensors
    optimizer = torch.optim.Adam(model.module.parameters(), 0.02)
    for _ in range(80):
        loss = nn.functional.cross_entropy(model.module(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model
