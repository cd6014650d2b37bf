"""The file that a model is deployed as, and what the model gives on the test and validation splits."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pipeline.deploy import deploy, located
from pipeline.errors import StageError, blame
from pipeline.measure.batching import batches_for, examine
from pipeline.model import Deployed, Model, TorchModel
from pipeline.run.store.store import RESULT
from pipeline.task import Task

DEPLOYED, PREDICTIONS = "deployed.onnx", "predictions.safetensors"


class DeployedFiles:
    """The files that models are deployed as, each made once. A model is told from others by identity."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Model, Deployed]] = []

    def add(self, model: Model, path: Path) -> Deployed:
        """Keep the file, which is there, that a torch model is deployed as; an ONNX form is its own."""
        if not isinstance(model, TorchModel):
            return model
        self._pairs.append((model, located(model, path)))
        return self._pairs[-1][1]

    def of(self, model: Model, folder: Path) -> Deployed:
        """The file of a model, made in `folder` where there is none; an ONNX form is its own."""
        if not isinstance(model, TorchModel):
            return model
        for other, file in self._pairs:
            if other is model and file.path.exists():  # an earlier stage's work folder is gone with its files
                return file
        return self.add(model, deploy(model, folder / f"deployed-{len(self._pairs)}.onnx").path)


def evaluate_into(
    to: Path,
    model: Model,
    task: Task,
    batch: int | None,
    progress: Callable[[str, int], AbstractContextManager[Callable[..., Any]]],
) -> None:
    """Write the deployed file of a torch form, and the predictions and metrics on the test split.

    The scores on validation are written beside the predictions. `batch` examples are predicted at a time; see
    `batches_for`.
    """
    measured = to / "measured"
    measured.mkdir()
    if isinstance(model, TorchModel):
        deploy(model, measured / DEPLOYED)
    with blame(StageError, "measuring"):
        batches = batches_for(model, task, batch)
    with progress("measuring", batches.count(task)) as advance:
        evaluation = examine(model, task, batches, advance)
    evaluation.save(measured / PREDICTIONS)
    metrics = {name: value.model_dump() for name, value in evaluation.metrics.items()}
    (to / RESULT).write_text(json.dumps({"metrics": metrics}))
