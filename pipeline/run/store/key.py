"""The key of a stage's result tells its whole story: equal keys, equal results.

A key is the SHA-256 of its parts as canonical JSON. The parts are kept beside the result, so that `shrink plan
--explain` can say why a stage would run again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from inspect import getfile
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from pipeline import deploy
from pipeline.base.code import places
from pipeline.base.code.seen import Seen, content_digest, variable_digest
from pipeline.base.code.sources import Sources
from pipeline.base.files import file_digest
from pipeline.base.hardware import LIBRARIES, Isa, host, version
from pipeline.base.use import Reference, reading
from pipeline.build.build import Built
from pipeline.forms.text.tokenizer import canonical
from pipeline.forms.weights import files_at
from pipeline.run.store.changes import Parts
from pipeline.stage import Stage


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
        modules = [module for seen in built.seen.values() for module in seen.modules.items()]
        self.sources = Sources({file: digest for _, (file, digest) in modules})
        self.versions: Parts = {name: version(name) for name in LIBRARIES}
        for _, stage in (*built.baseline, *built.stages):
            self._code(stage)
        self._task()
        self.sources.code(_user_files([built.config.model.use], built.config.model.folder))
        # What no import statement names was imported by its name in a string: by whom is not known.
        self.imported: Parts = {
            _place(file, built.config.folder): digest for _, (file, digest) in modules if file not in self.sources.read
        }
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
            **rests_on(stage),
            **self._read(self.built.seen_by(stage)),
            **self._common(model, ("train", "calibration", "validation")),
            **(self._scored() if stage.host_bound else {}),
            "baseline": baseline,
            "seed": self.built.config.seed,
            "threads": torch.get_num_threads(),
            "processes": self.processes if stage.distributed else 1,
            "host": host() if stage.host_bound or stage.chooses_by_answers() else None,
            **({"batch": self.built.config.batch} if stage.chooses_by_answers() and self.built.config.batch else {}),
            **({"run": self.run} if self.is_own(stage) else {}),
        }

    def is_own(self, stage: Stage) -> bool:
        """Whether a stage is run anew in each run: a limit on latency, memory or start-up is kept now, or it is not."""
        return stage.host_bound and bool(self.built.config.budget.on_rows)

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

    def target(self, model: Parts, isa: Isa, batch: int) -> Parts:
        """What a model's answers on another CPU depend on: its measurement here, and how it is emulated."""
        from pipeline.measure.isa import answers

        code = self.sources.code([Path(str(answers.__file__))])
        return {**self.measure(model), "stage": "target", "isa": isa, "emulation": code, "batch": batch}

    def kernels(self, before: str, after: str) -> Parts:
        """What the kernels and the time of a file depend on, beside those of the file before it: this machine.

        Args:
            before, after: keys of their measurements, which tell all of the files.
        """
        from pipeline.measure.kernels import kernels

        code = self.sources.code([Path(kernels.__file__)])
        versions: Parts = {"onnxruntime": self.versions["onnxruntime"]}
        return {
            "stage": "kernels",
            "before": before,
            "after": after,
            "code": code,
            "versions": versions,
            "host": host(),
        }

    def _scored(self) -> Parts:
        """What the scores elsewhere depend on that a stage of this machine is told of the model that comes in."""
        from pipeline.measure import accuracy, batching, elsewhere

        budget, folder = self.built.config.budget, self.built.config.folder
        limits = budget.model_dump(mode="json", include={"retention", "score", "drop"}, exclude_none=True)
        if budget.retention and budget.retention.of == "expected":
            limits |= {"expected": content_digest(folder / budget.expected)}
        return {
            "scored": {
                "test": self.built.data["test"].digest,
                "code": self.sources.code([Path(str(module.__file__)) for module in (accuracy, batching, elsewhere)]),
                "limits": limits,
                "batch": self.built.config.batch,
            }
        }

    def kept(self, what: str, model: Parts, parts: Parts, make: Callable[..., Any]) -> Parts:
        """What the values that `make` computes of a model on the training data depend on."""
        return {
            "stage": what,
            "parts": parts,
            "code": self.sources.code([Path(make.__code__.co_filename)]),
            **self._common(model, ("train", "calibration")),
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
        builder = description.get("builder")
        seen = reading(Reference(**builder, folder=self.built.config.folder)) if builder else Seen()
        return {"digest": digest, "code": self.sources.code(files), **self._read(seen)}

    def read_late(self, seen: Seen, *outputs: Path) -> Parts:
        """What users' code read while a stage ran and not before, when the key was made.

        Args:
            seen: while it ran.
            outputs: folders of results, which are no sources.
        """
        before = Seen()
        for piece in self.built.seen.values():
            before.add(piece)
        files = seen.files | dict(file for file in seen.modules.values() if file[0] not in self.sources.read)
        late_files = {
            file
            for file in files.keys() - before.files.keys()
            if not any(file.is_relative_to(at.resolve()) for at in outputs)
        }
        late = Seen(files={file: files[file] for file in late_files - {file for file, _ in before.modules.values()}})
        late.variables = {name: seen.variables[name] for name in seen.variables.keys() - before.variables.keys()}
        return self._read(late)

    def read_now(self, read: Parts) -> Parts:
        """The same as it is today."""
        folder = self.built.config.folder.resolve()
        files, names = read.get("read"), read.get("environment")
        seen = Seen()
        if isinstance(files, dict):
            seen.files = {folder / file: content_digest(folder / file) for file in files}
        if isinstance(names, dict):
            seen.variables = {name: variable_digest(name) for name in names}
        return self._read(seen)

    def _code(self, stage: Stage) -> Parts:
        return self.sources.code([Path(getfile(type(stage))), *references(stage, self.built.config.folder)])

    def _task(self) -> Parts:
        task = self.built.config.task
        use = task.use.partition(":")[0]
        files = _user_files([use], task.folder) or _our_files([f"pipeline.tasks.{use}"])
        parts: Parts = {"use": task.use, "arguments": task.arguments, "code": self.sources.code(files)}
        return parts | self._read(self.built.seen["task"])

    def _read(self, seen: Seen) -> Parts:
        """What users' code was seen to read beside its modules, as far as there is something."""
        parts: Parts = {
            "read": {_place(file, self.built.config.folder): digest for file, digest in sorted(seen.files.items())},
            "environment": {**seen.variables},
            "weights": {**seen.weights},
        }
        return {name: part for name, part in parts.items() if part}

    def _common(self, model: Parts, splits: tuple[str, ...]) -> Parts:
        return {
            "model": model,
            "task": self._task(),
            "data": {name: self.built.data[name].digest for name in splits},
            "tokenizer": self.tokenizer,
            **({"imported": self.imported} if self.imported else {}),
            "versions": self.versions,
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else self.device.type,
        }


def references(stage: BaseModel, folder: Path) -> list[Path]:
    """The code that a stage's settings name: the user's files, and where the parts of the settings are defined."""
    settings_parts = [value for value in _values(stage) if isinstance(value, BaseModel)]
    named = [value for value in settings_parts if isinstance(value, Reference)]
    files = [file for value in named for file in _user_files([value.use], value.folder or folder)]
    return files + [Path(getfile(type(value))) for value in settings_parts]


def rests_on(stage: BaseModel) -> Parts:
    """What parts of a stage's settings say that they rest on, as one does whose code runs in another process."""
    foundations = [value.rests_on() for value in _values(stage) if hasattr(value, "rests_on")]
    return {"rests_on": {str(i): parts for i, parts in enumerate(foundations)}} if foundations else {}


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


def _place(file: Path, folder: Path) -> str:
    """A file by its place in the pipeline file's folder, so that this can be moved; elsewhere by its whole path."""
    folder = folder.resolve()
    return (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()


def _user_files(uses: Iterable[str], folder: Path) -> list[Path]:
    names = [use.partition(":")[0] for use in uses]
    return [folder / name for name in names if name.endswith(".py")]


def _our_files(uses: Iterable[str]) -> list[Path]:
    """The modules and packages of ours among these names."""
    modules = [
        places.OURS.joinpath(*use.partition(":")[0].split(".")) for use in uses if use.split(".")[0] in places.PACKAGES
    ]
    files = [file for at in modules for file in (at.with_suffix(".py"), at / "__init__.py", at / f"{at.name}.py")]
    return [file for file in files if file.is_file()]


def _values(holder: Any) -> Iterable[Any]:
    """What a model or a container holds at any depth, the containers themselves aside."""
    if isinstance(holder, BaseModel):
        holder = [getattr(holder, name) for name in type(holder).model_fields]
    for value in holder.values() if isinstance(holder, dict) else holder:
        if not isinstance(value, list | tuple | dict):
            yield value
        if isinstance(value, BaseModel | list | tuple | dict):
            yield from _values(value)
