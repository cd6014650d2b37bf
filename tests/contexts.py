"""What the fixtures of conftest.py give, for child processes, which no fixture reaches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.model import TorchModel
from pipeline.stage import Context, Preview
from pipeline.task import Sealed, Split, Task, classification
from tests.conftest import as_target, context_of, quadrants


def tiny_task() -> Task:
    return classification(
        train=Split(quadrants(256, 0)), validation=Split(quadrants(64, 1)), test=Split(quadrants(128, 2))
    )


def bare_context(directory: Path, **changes: Any) -> Context:
    """A context on the tiny task for a stage that trains and deploys nothing."""
    return context_of(tiny_task(), directory, **changes)


def preview_of(model: Any, examples: int = 256, **changes: Any) -> Preview:
    """A preview of a task with as many examples in each split, none of which can be read."""
    data = Split(Sealed(examples))
    task = classification(data, data, data, calibration=data, as_target=as_target)
    return Preview(model, replace(task, **changes))


def saved_tiny(directory: Path) -> TorchModel:
    """What the fixture `tiny` made and a test saved."""
    return TorchModel.load(directory, Path(__file__).parent)
