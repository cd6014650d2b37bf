"""The folder for runs, and whether a chain fits on its disk, said before work and not by the last stage."""

import shutil
from pathlib import Path

from pipeline.base.formatting import bytes_text
from pipeline.build.build import Built
from pipeline.errors import ConfigError, ResourceError, blame
from pipeline.measure.cost import torch_params
from pipeline.measure.size import size_bytes
from pipeline.model import TorchModel

COPIES_OF_A_STAGE = 2  # the model and its deployed form; the run folder holds links
COPIES_WHILE_TRAINING = 8  # two checkpoints of weights and two moments each, the best weights, the result


def estimate_bytes(built: Built) -> int:
    """Bytes that a chain writes at most, if every stage kept the size of the first model, and all its trainings."""
    stages = len(built.baseline) + len(built.stages) + 1
    predictions = (64 * len(built.task.test) + 8 * len(built.task.validation)) * stages
    if isinstance(built.model, TorchModel):
        weights = 4 * torch_params(built.model.module)
        trainings = max([1, *(len([*stage.trainings()]) for _, stage in (*built.baseline, *built.stages))])
        return weights * (COPIES_OF_A_STAGE * stages + COPIES_WHILE_TRAINING * trainings) + predictions
    return size_bytes(built.model) * stages + predictions


def check(built: Built, runs: Path) -> None:
    """Raise ResourceError where the disk below `runs` has less room than the chain may need."""
    if shutil.disk_usage(runs).free < estimate_bytes(built):
        raise ResourceError("the disk is too full for this chain", where=str(runs), fix=needs(built, runs))


def needs(built: Built, runs: Path) -> str:
    """What the chain needs and what is free, as a clause."""
    free = shutil.disk_usage(runs).free
    return f"The chain needs about {bytes_text(estimate_bytes(built))}, {bytes_text(free)} are free"


def make(folder: Path, runs: Path) -> None:
    """Make a folder below that for runs. Raises ConfigError where it cannot be."""
    with blame(ConfigError, f"the folder for runs, {runs}", fix="Choose another with --runs"):
        folder.mkdir(parents=True, exist_ok=True)
