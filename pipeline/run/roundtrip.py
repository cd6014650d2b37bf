"""A model is what its folder holds: loaded from it, it gives the same to the bit; the folder's digest is its name."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from pipeline import model as models
from pipeline.base.batches import Outputs
from pipeline.errors import ConfigError, StageError
from pipeline.model import Model, OnnxModel

REBUILT = "Make every change of structure an edit (model.edited), and keep all state in parameters and buffers"


def save_exactly(model: Model, directory: Path, folder: Path) -> None:
    """Save a model, load it again and compare to the bit.

    Args:
        model: what a stage made.
        directory: where it goes.
        folder: where the user's files are.

    Raises:
        StageError: what was loaded gives other outputs: something of the model is in neither its builder, its edits
            nor its state dict.
    """
    model.save(directory)
    try:
        loaded = models.load(directory, folder, allow=None)
    except ConfigError as error:
        raise StageError(f"what it made cannot be loaded again: {error.found}", fix=REBUILT) from error
    if isinstance(model, OnnxModel) and isinstance(loaded, OnnxModel) and model.outside and loaded.outside:
        loaded = replace(loaded, outside=loaded.outside._replace(limits=model.outside.limits))  # the run's, not saved
    loaded_outputs = loaded.predict(model.example)
    if isinstance(loaded, OnnxModel):
        loaded.close()
    if changed := differing(model.predict(model.example), loaded_outputs):
        problem = f"saved and loaded again, the model gives other values for {changed}"
        raise StageError(problem, expected="the same outputs to the bit", fix=REBUILT)


def differing(ours: Outputs, theirs: Outputs) -> list[str]:
    """Names of our outputs that are not in theirs, or are not the same to the bit."""
    return [name for name in ours if name not in theirs or not _equal(ours[name], theirs[name])]


def _equal(a: Tensor, b: Tensor) -> bool:
    """Equal to the bit; NaN equals NaN, for it is the measuring's to refuse."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | (a.isnan() & b.isnan())).all())
