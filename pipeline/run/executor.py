"""One result at a time: from the store where it is there, else made, checked and kept."""

import gc
import json
import logging
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import JsonValue, TypeAdapter, ValidationError
from rich.console import Console

from pipeline import model as models
from pipeline.base.devices import pick_device, set_seed
from pipeline.base.files import folder_digest, link
from pipeline.base.progress import progress
from pipeline.base.signals import Interrupts
from pipeline.base.world import ALONE
from pipeline.build.build import Built
from pipeline.deploy import deploy, located
from pipeline.errors import StageError, blame
from pipeline.measure.accuracy import BATCH_SIZE, Evaluation, examine_task
from pipeline.model import Deployed, Model, OnnxModel, TorchModel
from pipeline.records.journal import Journal
from pipeline.run.distributed.launch import Processes
from pipeline.run.roundtrip import differing, save_exactly
from pipeline.run.store import key
from pipeline.run.store.key import Keys
from pipeline.run.store.store import Entry, Store
from pipeline.stage import Context, Stage, forms
from pipeline.task import kind

LOG = logging.getLogger("shrinkline")

JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)
RESULT, PREDICTIONS = "result.json", "predictions.safetensors"


@dataclass(frozen=True)
class Result:
    """A model with its digest and its folder in the run, and what the stage that gave it had to say."""

    model: Model
    digest: str
    folder: Path
    reports: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    cached: bool = False
    key: str | None = None
    measured_only: bool = False
    uses: tuple[str, ...] = ()
    comparisons: dict[str, "Result"] = field(default_factory=dict)


@dataclass
class StageOutput:
    """What a stage tells while it runs, beside the model that it gives."""

    reports: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    comparisons: dict[str, TorchModel] = field(default_factory=dict)
    uses: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class At:
    """A stage that runs: its place, what it is given, the folder that it works in, and where goes what it says."""

    place: str
    given: Result
    work: Path
    said: StageOutput


@dataclass
class Executor:
    """Makes the results of one run.

    Args:
        built: what the config names.
        store: where results are kept.
        journal: told each step.
        console: for progress.
        interrupts: whether to stop.
        baseline: the reference, once there is one.
        processes: those that train together.
    """

    built: Built
    store: Store
    journal: Journal
    console: Console
    interrupts: Interrupts
    baseline: Result | None = None
    processes: Processes = field(default_factory=Processes)
    deployed: dict[int, tuple[Model, Deployed]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        run = self.journal.path.parent.name
        self.keys = Keys(self.built, self.device, self.processes.world.size, run)

    def start(self, folder: Path) -> Result:
        """The model at the start of the chain, as it was built."""
        save_exactly(self.built.model, folder, self.built.config.folder)
        if isinstance(self.built.model, OnnxModel):
            self.built.model.close()  # what goes on is the copy
        return Result(self._load(folder), folder_digest(folder), folder)

    def make(self, place: str, stage: Stage, use: str, given: Result, folder: Path) -> Result:
        """What a stage makes of a model; its files are put into `folder`."""
        self.interrupts.check()
        baseline = self._identity(self.baseline) if self.baseline else None
        parts = self.keys.stage(stage, use, self._identity(given), baseline)
        with self._kept(place, parts, lambda work, to: self._run(place, stage, given, work, to)) as (entry, cached):
            saved_result = json.loads((entry.path / RESULT).read_text())
            reports, seconds = saved_result["reports"], saved_result["seconds"]
            common: dict[str, Any] = {"seconds": seconds, "cached": cached, "key": entry.key, "reports": reports}
            common |= {"warnings": tuple(saved_result["warnings"]), "uses": tuple(saved_result["uses"])}
            for name in saved_result["comparisons"]:
                link(entry.path / "comparisons" / name, folder / "comparisons" / name / "model")
            common["comparisons"] = {
                n: self._loaded(folder / "comparisons" / n / "model") for n in saved_result["comparisons"]
            }
            if saved_result["digest"] is None:
                return replace(given, measured_only=True, **common)
            link(entry.path / "model", folder / "model")
        model = self._load(folder / "model")
        return Result(model, saved_result["digest"], folder / "model", **common)

    def examine(self, place: str, given: Result, folder: Path) -> tuple[Deployed, Evaluation, str]:
        """The file that a model would be deployed as, its scores on test and validation, and the key of both.

        The files are put into `folder`.
        """
        self.interrupts.check()
        parts = self.keys.measure(self._identity(given))
        with self._kept(f"{place}, measured", parts, lambda _, to: self._evaluate(given.model, to)) as (entry, _):
            link(entry.path / "measured", folder)
        evaluation = Evaluation.load(folder / PREDICTIONS)
        model = given.model
        deployed = located(model, folder / "deployed.onnx") if isinstance(model, TorchModel) else model
        self.deployed[id(model)] = (model, deployed)
        return deployed, evaluation, entry.key

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return pick_device(self.built.config.device)

    def _load(self, folder: Path) -> Model:
        """A saved model; a file from outside is run within the limits of the config."""
        model, start = models.load(folder, self.built.config.folder), self.built.model
        if isinstance(model, OnnxModel) and model.outside and isinstance(start, OnnxModel) and start.outside:
            return replace(model, outside=model.outside._replace(limits=start.outside.limits))
        return model

    def _loaded(self, folder: Path) -> Result:
        return Result(models.load(folder, self.built.config.folder), folder_digest(folder), folder)

    def _identity(self, of: Result) -> key.Parts:
        return self.keys.model(of.digest, of.folder)

    @contextmanager
    def _kept(self, place: str, parts: key.Parts, make: Callable[[Path, Path], None]) -> Iterator[tuple[Entry, bool]]:
        """The entry of these parts, made if need be by make(work folder, folder to fill); held while it is read."""
        name = key.digest(parts)
        with self.store.claim(name, place) as work:
            entry = self.store.find(name)
            cached = entry is not None
            if entry is None:
                gc.enable()  # which rests while everything is imported and read, see `uncollected`
                self.journal.write("begin", place=place, key=name)
                LOG.info("%s", place)
                with blame(StageError, place):
                    entry = self.store.commit(name, parts, lambda to: make(work, to))
                self.journal.write("made", place=place, key=name)
            else:
                self.journal.write("reused", place=place, key=name)
                LOG.info("%s: as computed before", place)
            self.store.done(name)
            yield entry, cached

    def _run(self, place: str, stage: Stage, input_result: Result, work: Path, to: Path) -> None:
        """Run a stage and write what it made into `to`."""
        began = time.monotonic()
        side_results = StageOutput()
        set_seed(self.built.config.seed)
        before = input_result.model.predict(input_result.model.example)
        ctx = self.context(place, stage, input_result, work, side_results)
        with self._together(place, stage, input_result, work):
            output_model = stage.run(input_result.model, ctx)
        if differing(before, input_result.model.predict(input_result.model.example)):
            fix = "Work on copy.deepcopy(model.module) and return dataclasses.replace(model, module=...)"
            raise StageError("run changed the model that it was given", expected="a new model", fix=fix)
        promised = forms(type(stage))[1] or type(input_result.model)
        if not isinstance(output_model, Model) or not isinstance(output_model, promised):
            raise StageError(
                f"run gave {type(output_model).__name__}", expected=f"{promised.__name__}, as it is annotated"
            )
        name = None
        if (
            isinstance(output_model, OnnxModel)
            and isinstance(input_result.model, OnnxModel)
            and input_result.model.outside
        ):
            # What is made of a file from outside is from there too.
            output_model = (
                output_model if output_model.outside else replace(output_model, outside=input_result.model.outside)
            )
        if output_model is not input_result.model:
            save_exactly(output_model, to / "model", self.built.config.folder)
            name = folder_digest(to / "model")
        for other, model in side_results.comparisons.items():
            save_exactly(model, to / "comparisons" / other, self.built.config.folder)
        seconds = round(time.monotonic() - began, 3)
        saved_result = {
            "digest": name,
            "reports": side_results.reports,
            "warnings": side_results.warnings,
            "seconds": seconds,
        }
        saved_result |= {"uses": side_results.uses, "comparisons": list(side_results.comparisons)}
        (to / RESULT).write_text(json.dumps(saved_result))

    def _together(self, place: str, stage: Stage, input_result: Result, work: Path) -> AbstractContextManager[None]:
        """Have the other processes run a stage along, where it is one for all."""
        if not stage.distributed:
            return nullcontext()
        folders = {
            "given": input_result.folder,
            "baseline": self.baseline.folder if self.baseline else None,
            "work": work,
        }
        order: key.Parts = {"place": place}
        order |= {name: str(folder.resolve()) if folder else None for name, folder in folders.items()}
        run, size = shlex.quote(str(self.journal.path.parent)), self.processes.world.size
        return self.processes.together(order, f"`shrink resume {run} --processes {size}` goes on")

    def _evaluate(self, model: Model, to: Path) -> None:
        """Write the deployed file of a torch form, and the predictions and metrics on the test split.

        The scores on validation are written beside the predictions.
        """
        measured = to / "measured"
        measured.mkdir()
        if isinstance(model, TorchModel):
            deploy(model, measured / "deployed.onnx")
        task = self.built.task
        batches = sum(-(-len(split) // BATCH_SIZE) for split in (task.test, task.validation))
        with progress(self.console, LOG, "measuring", batches) as advance:
            evaluation = examine_task(model, task, advance)
        evaluation.save(measured / PREDICTIONS)
        metrics = {name: value.model_dump() for name, value in evaluation.metrics.items()}
        (to / RESULT).write_text(json.dumps({"metrics": metrics}))

    def context(self, place: str, stage: Stage, given: Result, work: Path, said: StageOutput) -> Context:
        """What a stage is given; what it says is put into `said`."""
        keep = partial(self._keep, At(place, given, work, said))
        return Context(
            task=self.built.task,
            baseline=self.baseline.model if self.baseline else None,
            directory=work,
            device=self.device,
            seed=self.built.config.seed,
            log=LOG,
            progress=partial(progress, self.console, LOG),
            report=partial(keep_report, said.reports),
            deployed=partial(self._deployed, work),
            interrupted=self.interrupts.requested,
            warn=said.warnings.append,
            world=self.processes.world if stage.distributed else ALONE,
            kept=self.processes.share(keep) if stage.distributed else keep,
            compare=said.comparisons.__setitem__,
        )

    def _keep(self, at: At, what: str, model: Model, parts: key.Parts, make: Callable[[Path], None]) -> Path:
        """The folder that `make` has filled for a model, through the store; linked into the work folder."""
        matching_results = [result for result in (at.given, self.baseline) if result and result.model is model]
        if matching_results:
            identity = self._identity(matching_results[0])
        else:
            with TemporaryDirectory(dir=at.work) as folder:
                model.save(Path(folder))
                identity = self.keys.model(folder_digest(Path(folder)), Path(folder))
        whole = self.keys.kept(what, identity, parts, make)

        def fill(_: Path, to: Path) -> None:
            (to / "kept").mkdir()
            make(to / "kept")

        with self._kept(f"{at.place}, {what}", whole, fill) as (entry, _):
            target = at.work / f"kept-{entry.key[:16]}"
            link(entry.path / "kept", target)
            at.said.uses.append(entry.key)
        return target

    def _deployed(self, work: Path, model: Model) -> Deployed:
        """The file that a model would be deployed as; an ONNX form is its own."""
        if not isinstance(model, TorchModel):
            return model
        entry = self.deployed.get(id(model))
        if entry is None or not entry[1].path.exists():  # an earlier stage's work folder is gone with its files
            # The model is kept beside its file: an id alone could be given to another object.
            self.deployed[id(model)] = (model, deploy(model, work / f"deployed-{len(self.deployed)}.onnx"))
        return self.deployed[id(model)][1]


def keep_report(reports: dict[str, Any], name: str, value: Any) -> None:
    """Keep what a stage reports. Raises StageError where it is not JSON."""
    try:
        reports[name] = JSON.validate_python(value)
    except ValidationError as error:
        raise StageError(
            f"the report `{name}` holds {kind(error.errors()[0]['input'])}",
            expected="JSON: numbers, text, lists, dictionaries with names",
            fix="Use .item() or .tolist() on tensors and arrays",
        ) from None
