"""A pipeline as a mapping, with objects in place of names -> its config, and the objects that it is lent."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import nn

from pipeline.build.config import PipelineConfig
from pipeline.build.live.digest import Digest
from pipeline.build.live.lent import TASK, Loan
from pipeline.build.live.module import Builder, lent_as, own_copy, source
from pipeline.build.syntax.validate import validate
from pipeline.errors import ConfigError
from pipeline.stage import Stage
from pipeline.task import Task

CHAINS = ("stages", "baseline")


@dataclass
class Prepared:
    """A config, and what it was given as objects.

    Args:
        config: as a file would say it.
        objects: by their digests, to be lent while it is built and run.
        module: what the model is to be, where a builder was named for it.
    """

    config: PipelineConfig
    objects: dict[str, Loan] = field(default_factory=dict)
    module: nn.Module | None = None


def prepared(data: Mapping[str, Any], folder: Path, weights: Path, builder: Builder | None = None) -> Prepared:
    """The config that a mapping says.

    Args:
        data: the keys of a pipeline file. `task` may be a Task, `model` a trained module; a stage may be an object, or
            its bare name; settings of stages may be modules.
        folder: where files are looked for.
        weights: the folder that weights of modules are written into.
        builder: what builds the model, where it is a module; see `source`.

    Raises:
        ConfigError: a key or a value does not fit, or an object is of no known kind.
    """
    objects, plain = dict[str, Loan](), dict(data)
    module = None
    if isinstance(task := plain.get("task"), Task):
        plain["task"] = _lent_task(task, objects)
    if isinstance(plain.get("model"), nn.Module):
        module = own_copy(plain["model"])
        plain["model"] = source(module, builder, folder, weights, objects)
    elif builder is not None:
        raise ConfigError("the model is named already", where="builder", expected="an nn.Module beside it")
    for chain in CHAINS:
        if isinstance(entries := plain.get(chain), list | tuple):
            plain[chain] = [_entry(entry, f"{chain}[{i}]", folder, objects) for i, entry in enumerate(entries)]
    plain = {key: _plain(value, objects) for key, value in plain.items() if value is not None}
    if "folder" in plain:
        raise ConfigError("there is no key `folder`", where="config")
    plain["name"] = plain.get("name") or (type(module).__name__ if module else "python")
    config = validate(PipelineConfig, {**plain, "folder": folder}, None, (), folder)
    return Prepared(config, objects, module if builder is not None else None)


def _lent_task(task: Task, objects: dict[str, Loan]) -> dict[str, Any]:
    """The reference to a task; its digest is of what it does to data, which have digests of their own."""
    digest = Digest().add({field.name: getattr(task, field.name) for field in fields(task)})
    objects[digest.hexdigest()] = Loan("the task", task, frozenset(digest.opaque))
    sizes = ", ".join(f"{len(getattr(task, name)):,} {name}" for name in ("train", "validation", "test"))
    return {"use": TASK, "digest": digest.hexdigest(), "of": f"{sizes} examples"}


def _entry(entry: Any, where: str, folder: Path, objects: dict[str, Loan]) -> Any:
    """A stage of a chain, as a file would say it."""
    if isinstance(entry, str):
        return {"use": entry}
    if isinstance(entry, Stage):
        return {"use": _use(type(entry), where, folder), **entry.model_dump(mode="json", exclude_unset=True)}
    if isinstance(entry, Mapping):
        return entry
    expected = 'a stage, {"use": "prune.channels", ...} or "export.onnx"'
    fix = f"Write {entry.__name__}(...)" if isinstance(entry, type) else ""
    raise ConfigError(f"it is a {type(entry).__name__}", where=where, expected=expected, fix=fix)


def _use(kind: type[Stage], where: str, folder: Path) -> str:
    """The name of a stage's class: of ours the module, of a user's the file."""
    if kind.__module__.startswith("stages."):
        parts = kind.__module__.split(".")[1:]
        return ".".join(parts)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if kind.__module__ == "__main__" or file is None:
        problem = f"`{kind.__name__}` is of {kind.__module__}, which cannot be imported elsewhere"
        raise ConfigError(problem, where=where, fix="Define it in a file of its own")
    path, folder = Path(file).resolve(), folder.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _plain(value: Any, objects: dict[str, Loan]) -> Any:
    """A value as YAML would give it; a module becomes the reference to it."""
    if isinstance(value, nn.Module):
        return lent_as(own_copy(value), objects)
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json", exclude_unset=True), objects)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, objects) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, objects) for inner in value]
    return str(value) if isinstance(value, Path) else value
