"""The code that a saved model names: builders and edits of ours and of the pipeline file's folder, nothing else."""

import inspect
import sys
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.base.use import Reference
from pipeline.errors import ConfigError

OURS = ("pipeline", "stages")


def check_code(reference: Reference, directory: Path, allow: Collection[str] | None) -> None:
    """Refuse what a saved model names before it is called, and where it is not ours before it is imported.

    What is ours is annotated to give an nn.Module. A file of the user's lies in the folder of the pipeline file, and
    not in that of the saved model or the one that it came in; it defines what is named, a module or a function.

    Args:
        reference: a builder or an edit, with the folder of the pipeline file.
        directory: of the saved model.
        allow: names of other code that is trusted; None for all, of models that this installation has just saved.

    Raises:
        ConfigError: it is anything else.
    """
    if allow is None or reference.use in allow:
        return
    file, name = reference.use.partition(":")[0], reference.use.partition(".")[0]
    is_user_file = file.endswith(".py") and _lies_beside(file, reference.folder.resolve(), directory.resolve())
    if is_user_file or (name in OURS and not file.endswith(".py")):
        target = reference.resolve()
        home = reference.folder.resolve() if is_user_file else None
        if _gives_module(target, is_annotated=home is None) and _is_defined_in(target, home):
            return
    raise ConfigError(
        f"it names the code `{reference.use}`",
        where=str(directory),
        expected="a builder or an edit of ours, or one that is defined in the folder of the pipeline file",
        fix=f'Where you trust it, name it: `allow: ["{reference.use}"]` beside `saved`, allow=[...] in Python',
    )


def _lies_beside(name: str, folder: Path, directory: Path) -> bool:
    """Whether a file lies in a folder, by a path that stays there, and did not come with the saved model."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or not path.resolve().is_relative_to(folder):
        return False
    below = directory.relative_to(folder).parts if directory.is_relative_to(folder) else ()
    return not below or not path.resolve().is_relative_to(folder / below[0])


def _gives_module(target: Any, *, is_annotated: bool) -> bool:
    """Whether it is a kind of nn.Module, or a function that says so, or need not say what it gives."""
    if inspect.isclass(target):
        return issubclass(target, nn.Module)
    if not inspect.isfunction(target):
        return False
    try:
        hint = typing.get_type_hints(target).get("return")
    except NameError:  # of what is imported for annotations alone
        hint = None
    if hint is None:
        return not is_annotated
    return inspect.isclass(hint) and issubclass(hint, nn.Module)


def _is_defined_in(target: Any, home: Path | None) -> bool:
    """Whether the module that defines it lies in a folder; without one, whether it is ours."""
    module = sys.modules.get(target.__module__)
    if home is None:
        return target.__module__.partition(".")[0] in OURS
    return bool(module and module.__file__ and Path(module.__file__).resolve().is_relative_to(home))
