"""What the fixtures of conftest.py give, for child processes, which no fixture reaches."""

import logging
from pathlib import Path
from typing import Any

import torch

from pipeline.model import TorchModel
from pipeline.stage import Context
from pipeline.task import Split, Task, classification
from tests.conftest import quadrants, silent


def tiny_task() -> Task:
    return classification(
        train=Split(quadrants(256, 0)), validation=Split(quadrants(64, 1)), test=Split(quadrants(128, 2))
    )


def bare_context(directory: Path, **changes: Any) -> Context:
    """A context on the tiny task for a stage that trains and deploys nothing."""
    task = tiny_task()
    given = {
        "train": task.train,
        "calibration": task.calibration,
        "validation": task.validation,
        "loss": task.loss,
        "decode": task.decode,
        "score": task.score,
        "augment": None,
        "baseline": None,
        "directory": directory,
        "device": torch.device("cpu"),
        "seed": 0,
        "log": logging.getLogger("shrinkline"),
        "progress": silent,
        "report": lambda name, value: None,
        "deployed": lambda model: model,
    }
    return Context(**{**given, **changes})


def saved_tiny(directory: Path) -> TorchModel:
    """What the fixture `tiny` made and a test saved."""
    return TorchModel.load(directory, Path(__file__).parent)
