"""Which files a runtime loads of a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.base.files import files_below
from pipeline.errors import StageError


def loaded_files(place: Mapping[str, Any]) -> list[Path]:
    """The files of a model, as `convert` tells them: its `files`, or else the file or all of the folder `model`."""
    if "files" in place:
        return [Path(file) for file in place["files"]]
    model = Path(place["model"])
    return files_below(model) if model.is_dir() else [model]


def files_beside(place: Mapping[str, Any]) -> dict[str, Path]:
    """The same by where they lie beside `model`. Raises StageError where one lies elsewhere."""
    folder = Path(place["model"]).parent
    files = loaded_files(place)
    if strange := [file for file in files if not file.is_relative_to(folder)]:
        raise StageError(f"{strange[0]} does not lie beside the model, so it cannot be sent", expected=f"in {folder}")
    return {file.relative_to(folder).as_posix(): file for file in files}
