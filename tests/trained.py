"""Trainings of the tiny network: teachers, students, what they score and what they weigh."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.base.batches import Inputs, Outputs
from pipeline.context import Context
from pipeline.measure.accuracy import mean_score
from pipeline.model import TorchModel
from stages.kd.cache import CachedValues, fill
from stages.kd.student import Student
from stages.kd.teacher import Teacher
from stages.kd.teacher_config import TeacherConfig
from stages.train.supervised import SupervisedTraining

SHORT: dict[str, Any] = {"epochs": 8, "batch_size": 32, "learning_rate": 0.01}


def teach(model: TorchModel, ctx: Context) -> TorchModel:
    return SupervisedTraining(**SHORT).run(model, ctx)


def live_teacher(model: Any, ctx: Context, **options: Any) -> Teacher:
    return Teacher(TeacherConfig(use="incoming"), model, ctx, **options)


def tiny_student(width: int = 4) -> Student:
    """The network of tests/conftest.py, by its name."""
    return Student(use="conftest.py:TinyNet", arguments={"width": width}, folder=Path(__file__).parent)


def score(model: TorchModel, ctx: Context) -> float:
    """On the validation split."""
    return mean_score(model, ctx.validation, decode=ctx.decode, score=ctx.score)


def weights(model: TorchModel) -> Tensor:
    """All of them, as one vector."""
    return torch.nn.utils.parameters_to_vector(model.module.parameters()).detach().clone()


def kept_values(ctx: Context, compute: Callable[[Inputs], Outputs]) -> CachedValues:
    """What a function gives of the training split, kept in the context's folder."""
    (folder := ctx.directory / "kept").mkdir()
    fill(folder, ctx, compute, None)
    return CachedValues(folder, len(ctx.train))


def noisy(inputs: Inputs, seed: int, view: int, scale: float = 1.0) -> Inputs:
    """An augmentation: normal noise from the seed and the view."""
    generator = torch.Generator().manual_seed((seed * 31 + view) % 2**62)
    return {name: value + scale * torch.randn(value.shape, generator=generator) for name, value in inputs.items()}
