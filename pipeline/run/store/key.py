"""The key of a stage's result tells its whole story: equal keys, equal results.

A key is the SHA-256 of its parts as canonical JSON. The parts are kept beside the result, so that `shrink plan
--explain` can say why a stage would run again.
"""

import ast
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from functools import cache
from inspect import getfile
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, JsonValue

from pipeline import deploy
from pipeline.base.files import file_digest
from pipeline.base.hardware import LIBRARIES, host, version
from pipeline.base.use import Reference
from pipeline.build.build import Built
from pipeline.forms.text.tokenizer import canonical
from pipeline.forms.weights import files_at
from pipeline.stage import Stage

Parts = dict[str, JsonValue]

OURS = Path(__file__).parents[3]
PACKAGES = ("stages", "pipeline")


def digest(parts: Parts) -> str:
    """SHA-256 of the parts, in full length."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Keys:
    """Makes the keys of one run. Each source file is read once: what is edited while the run lasts is not what runs.

    Args:
        built: the task, the data, the seed.
        device: where it is computed.
        processes: how many train together.
        run: the name of the run; what is limited in it and holds on this machine alone is measured in it.
    """

    def __init__(self, built: Built, device: torch.device, processes: int = 1, run: str = "a new run") -> None:
        self.built, self.device, self.processes, self.run = built, device, processes, run
        self.sources = Sources()
        self.versions: Parts = {name: version(name) for name in LIBRARIES}
        for _, stage in (*built.baseline, *built.stages):
            self._code(stage)
        self._task()
        self.tokenizer = hashlib.sha256((canonical(built.task.tokenizer) or "").encode()).hexdigest()

    def stage(self, stage: Stage, use: str, model: Parts, baseline: Parts | None) -> Parts:
        """What the result of a stage depends on.

        Args:
            stage: with its resolved settings.
            use: its name in the config.
            model, baseline: the `model` parts of the model that comes in and of the reference.
        """
        return {
            "stage": use if not use.endswith(".py") else Path(use).name,
            "settings": stage.model_dump(mode="json"),
            "code": self._code(stage),
            "files": _digests(stage),
            **self._common(model, ("train", "calibration", "validation")),
            "baseline": baseline,
            "seed": self.built.config.seed,
            "threads": torch.get_num_threads(),
            "processes": self.processes if stage.distributed else 1,
            "host": host() if stage.host_bound else None,
            **({"run": self.run} if self.is_own(stage) else {}),
        }

    def is_own(self, stage: Stage) -> bool:
        """Whether a stage is run anew in each run: a limit on latency is kept now, or it is not."""
        return stage.host_bound and self.built.config.budget.latency is not None

    def measure(self, model: Parts) -> Parts:
        """What a model's measurement depends on; int8 arithmetic differs between processors, so the host does too."""
        from pipeline.measure import accuracy, batching

        return {
            "stage": "measure",
            "code": self.sources.code([Path(str(module.__file__)) for module in (accuracy, batching, deploy)]),
            **self._common(model, ("validation", "test")),
            "host": host(),
            **({"batch": self.built.config.batch} if self.built.config.batch else {}),
        }

    def kept(self, what: str, model: Parts, parts: Parts, make: Callable[..., Any]) -> Parts:
        """What the values that `make` computes of a model on the training data depend on."""
        return {
            "stage": what,
            "parts": parts,
            "code": self.sources.code([Path(make.__code__.co_filename)]),
            **self._common(model, ("train",)),
            "host": host(),
        }

    def model(self, digest: str, saved: Path) -> Parts:
        """A model: the digest of its files and, as weights alone are no model, the code that rebuilds it.

        Args:
            digest: of its files.
            saved: the folder with them.
        """
        description = json.loads((saved / "model.json").read_text())
        named = [entry["use"] for entry in [description.get("builder"), *description.get("edits", [])] if entry]
        files = _user_files(named, self.built.config.folder) + _our_files(named)
        return {"digest": digest, "code": self.sources.code(files)}

    def _code(self, stage: Stage) -> Parts:
        return self.sources.code([Path(getfile(type(stage))), *references(stage, self.built.config.folder)])

    def _task(self) -> Parts:
        task = self.built.config.task
        use = task.use.partition(":")[0]
        files = _user_files([use], task.folder) or _our_files([f"pipeline.tasks.{use}"])
        return {"use": task.use, "arguments": task.arguments, "code": self.sources.code(files)}

    def _common(self, model: Parts, splits: tuple[str, ...]) -> Parts:
        return {
            "model": model,
            "task": self._task(),
            "data": {name: self.built.data[name].digest for name in splits},
            "tokenizer": self.tokenizer,
            "versions": self.versions,
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else self.device.type,
        }


class Sources:
    """Source files, each read once."""

    def __init__(self) -> None:
        self.read: dict[Path, tuple[str, tuple[Path, ...]]] = {}

    def code(self, files: Iterable[Path]) -> Parts:
        """Digests by name of source files and of all that they import from their own folder, stages/ and pipeline/.

        A user's files are named relative to the folder that holds all of them: they can be moved together.
        """
        waiting, seen = [file.resolve() for file in files], set[Path]()
        while waiting:
            file = waiting.pop()
            if file not in seen:
                seen.add(file)
                if file not in self.read:
                    content = file.read_bytes()
                    self.read[file] = hashlib.sha256(content).hexdigest(), _imports(file, content)
                waiting += self.read[file][1]
        names = {file: _our_name(file) for file in sorted(seen)}
        user_files = [file for file, name in names.items() if name is None]
        above = Path(os.path.commonpath([file.parent for file in user_files])) if user_files else OURS
        return {name or file.relative_to(above).as_posix(): self.read[file][0] for file, name in names.items()}


def changed(old: Parts, new: Parts, prefix: str = "") -> list[str]:
    """The parts that differ, as lines: "settings.epochs: 3 -> 5", "code.models.py: changed"."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            lines += changed(a, b, f"{prefix}{name}.")
        elif _is_digest(a) and _is_digest(b):
            lines.append(f"{prefix}{name}: changed")
        else:
            lines.append(f"{prefix}{name}: {_short(a)} -> {_short(b)}")
    return lines


def references(stage: BaseModel, folder: Path) -> list[Path]:
    """The code that a stage's settings name: the user's files, and where the parts of the settings are defined."""
    settings_parts = [value for value in _values(stage) if isinstance(value, BaseModel)]
    named = [value for value in settings_parts if isinstance(value, Reference)]
    files = [file for value in named for file in _user_files([value.use], value.folder or folder)]
    return files + [Path(getfile(type(value))) for value in settings_parts]


def _digests(stage: BaseModel) -> Parts:
    """Of the files that hold data for a stage, by their names in its settings."""
    named = [value for value in _values(stage) if isinstance(value, Reference)]
    files = [
        (file.relative_to(value.folder) if file.is_relative_to(value.folder) else file, file)
        for value in named
        for named_file in value.files()
        for file in files_at(named_file)
    ]
    return {name.as_posix(): file_digest(file) for name, file in files}


def _user_files(uses: Iterable[str], folder: Path) -> list[Path]:
    names = [use.partition(":")[0] for use in uses]
    return [folder / name for name in names if name.endswith(".py")]


def _our_files(uses: Iterable[str]) -> list[Path]:
    """The modules and packages of ours among these names."""
    places = [OURS.joinpath(*use.partition(":")[0].split(".")) for use in uses if use.split(".")[0] in PACKAGES]
    files = [file for at in places for file in (at.with_suffix(".py"), at / "__init__.py", at / f"{at.name}.py")]
    return [file for file in files if file.is_file()]


@cache
def _our_name(file: Path) -> str | None:
    """The name of a file of ours below the folder that holds our packages; None of a user's file."""
    ours = any(file.is_relative_to(OURS / package) for package in PACKAGES)
    return file.relative_to(OURS).as_posix() if ours else None


@cache
def _imports(file: Path, content: bytes) -> tuple[Path, ...]:
    """The files that a file imports, anywhere in it, by a relative import or from our packages."""
    imported_files = set[Path]()
    for node in _import_statements(ast.parse(content)):
        if isinstance(node, ast.Import):
            names = [(OURS, alias.name) for alias in node.names]
        else:
            base = file.parents[node.level - 1] if node.level else OURS
            inner = [f"{node.module}.{alias.name}" if node.module else alias.name for alias in node.names]
            names = [(base, name) for name in ([node.module] if node.module else []) + inner]
        relative = isinstance(node, ast.ImportFrom) and node.level > 0
        for base, name in names:
            if relative or name.split(".")[0] in PACKAGES:
                path = base.joinpath(*name.split("."))
                imported_files |= {p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()}
    return tuple(sorted(imported_files))


def _import_statements(tree: ast.AST) -> Iterable[ast.Import | ast.ImportFrom]:
    """Every import, found by walking statements alone: most nodes of a tree lie in expressions."""
    if isinstance(tree, ast.Import | ast.ImportFrom):
        yield tree
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        for inner in getattr(tree, block, ()):
            yield from _import_statements(inner)


def _values(holder: Any) -> Iterable[Any]:
    """What a model or a container holds at any depth, the containers themselves aside."""
    if isinstance(holder, BaseModel):
        holder = [getattr(holder, name) for name in type(holder).model_fields]
    for value in holder.values() if isinstance(holder, dict) else holder:
        if not isinstance(value, list | tuple | dict):
            yield value
        if isinstance(value, BaseModel | list | tuple | dict):
            yield from _values(value)


def _short(value: JsonValue) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_digest(value: JsonValue) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{32,64}", value) is not None
