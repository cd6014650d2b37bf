"""Whole runs of tasks with labels, with pixels and with what is ignored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.measure.accuracy import Evaluation
from pipeline.records.record import Record
from pipeline.runner import run

MODELS = """
from torch import nn

def net(width=32, classes=5):
    hidden = nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(width, classes))

def pixels(width=16):
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 3, 1))
"""
DATA = """
import torch
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from pipeline.task import Split, Task, classification, multi_label, split_by_seed

G = torch.Generator().manual_seed(0)

def cut(x, y):
    return split_by_seed(Split(TensorDataset(x, y)), [0.5, 0.2, 0.3])

def labels():
    x = torch.randn(700, 6, generator=G)
    y = ((x @ torch.randn(6, 5, generator=G)) > 0.5).float()
    score = lambda p, t: ((p > 0) == (t > 0.5)).all(1).float()
    return multi_label(*cut(x, y), score=score)

def dense():
    x = torch.rand(120, 1, 8, 8, generator=G)
    y = (F.avg_pool2d(x, 3, 1, 1)[:, 0] * 9 - 3).clamp(0, 2).long()
    y[:, 0, 0] = 255
    return classification(*cut(x, y), ignore_index=255)

def partly(constant=False):
    x = torch.randn(300, 6, generator=G)
    y = (x @ torch.randn(6, 5, generator=G)).argmax(1)
    y[::3] = -100
    return classification(*cut(x * (0 if constant else 1) + torch.arange(300)[:, None] * 1e-9, y))
"""
TRAINED = "baseline: [{use: train.supervised, epochs: %d, learning_rate: 0.01, batch_size: 32}]"
STUDENT = "{use: distill.logits, student: {use: models.py:%s}, epochs: %d, learning_rate: 0.01, batch_size: 32%s}"


@pytest.fixture
def ended(project: Callable[..., Path], tmp_path: Path) -> Callable[..., Record]:
    """ended(chain): the record of a run of it."""

    def make(*lines: str) -> Record:
        path = project("\n".join(lines), **{"data.py": DATA, "models.py": MODELS})
        return run(path, runs=tmp_path / "runs", track=False)

    return make


@pytest.mark.slow
def test_labels_are_learned_from_a_teacher_better_than_alone(ended: Callable[..., Record]) -> None:
    stage = STUDENT % ("net, width: 16", 10, ", control: true, seeds: 3")
    record = ended("task: {use: data.py:labels}", "model: {use: models.py:net}", TRAINED % 10, f"stages: [{stage}]")
    gain = record.stages[0].gain
    assert gain is not None
    assert gain.student.mean >= gain.control.mean
    assert gain.metrics["f1_micro"].value > 0
    for estimate in record.stages[0].metrics.values():
        assert 0.8 < estimate.low < estimate.value < estimate.high < 1


def test_pixels_are_compared_by_class_where_they_count(ended: Callable[..., Record]) -> None:
    stages = f"stages: [{STUDENT % ('pixels, width: 6', 2, '')}, {{use: export.onnx}}]"
    record = ended("task: {use: data.py:dense}", "model: {use: models.py:pixels}", TRAINED % 4, stages)
    assert record.baseline is not None
    ours, theirs = (Evaluation.load(Path(record.folder) / one.predictions) for one in (record.final, record.baseline))  # type: ignore[union-attr]
    assert ours.targets is not None
    assert (ours.targets[:, 0, 0] == -100).all()
    counted = torch.ones(8, 8, dtype=torch.bool)
    counted[0, 0] = False
    p, q = (one.predictions.double().log_softmax(1).movedim(1, -1)[:, counted] for one in (theirs, ours))
    assert record.stages[1].agreement == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()))
    assert record.stages[1].kl_mean == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()))
    right = (ours.predictions.argmax(1) == ours.targets)[:, counted].double().mean()
    assert record.stages[1].score == pytest.approx(float(right))
    assert record.stages[0].reports["teacher"]["validation"]["accuracy"] > 0.5  # type: ignore[index, call-overload]


@pytest.mark.parametrize(("task", "doubt"), [
    ("{use: data.py:partly}", None),
    ("{use: data.py:partly, constant: true}", r"the last model: it predicts the class \d for every test example"),
])  # fmt: skip
def test_examples_without_a_label_are_not_wrong(ended: Callable[..., Record], task: str, doubt: Any) -> None:
    chain = [f"task: {task}", "model: {use: models.py:net}", TRAINED % 4, "stages: [{use: export.onnx}]"]
    record = ended(*chain)
    final = record.final
    assert final is not None
    evaluation = Evaluation.load(Path(record.folder) / final.predictions)
    assert evaluation.targets is not None
    assert (evaluation.targets >= 0).all()
    assert final.test_samples == len(evaluation.scores) == sum(one.support for one in final.classes) < 90
    assert any("every test example" in text for text in record.warnings) == bool(doubt)
