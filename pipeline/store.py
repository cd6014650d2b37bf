"""Committing a stage's result: saved, built again, compared to the bit, and only then in its place."""

import hashlib
import shutil
from pathlib import Path

from torch import Tensor

from pipeline import model as models
from pipeline.errors import ConfigError, StageError
from pipeline.model import Model, Outputs

REBUILT = "Make every change of structure an edit (model.edited), and keep all state in parameters and buffers"


def commit(model: Model, directory: Path, folder: Path) -> tuple[Model, str]:
    """Save a model, load it again and compare; gives the loaded one and the digest of its files.

    Args:
        model: what a stage made.
        directory: where it goes, whole or not at all.
        folder: where the user's files are.

    Raises:
        StageError: what was loaded gives other outputs: something of the model is in neither its builder, its edits
            nor its state dict.
    """
    temporary = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save(temporary)
    try:
        loaded = models.load(temporary, folder)
    except ConfigError as error:
        raise StageError(f"what it made cannot be loaded again: {error.found}", fix=REBUILT) from error
    ours, theirs = model.predict(model.example), loaded.predict(model.example)
    if changed := differing(ours, theirs):
        raise StageError(
            f"saved and loaded again, the model gives other values for {changed}",
            expected="the same outputs to the bit",
            fix=REBUILT,
        )
    temporary.replace(directory)
    return models.load(directory, folder), digest(directory)


def differing(ours: Outputs, theirs: Outputs) -> list[str]:
    """Names of our outputs that are not in theirs, or are not the same to the bit."""
    return [name for name in ours if name not in theirs or not _equal(ours[name], theirs[name])]


def _equal(a: Tensor, b: Tensor) -> bool:
    """Equal to the bit; NaN equals NaN, for it is the measuring's to refuse."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | (a.isnan() & b.isnan())).all())


def digest(directory: Path) -> str:
    """SHA-256 over the names and contents of a folder's files."""
    whole = hashlib.sha256()
    for file in sorted(directory.iterdir()):
        whole.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()
