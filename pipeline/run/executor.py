"""One result at a time: from the store where it is there, else made, checked and kept."""

import json
import logging
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from pipeline import model as models
from pipeline.base.code.recorder import recorder
from pipeline.base.devices import pick_device, set_seed
from pipeline.base.files import folder_digest, link
from pipeline.base.hardware import Isa
from pipeline.base.progress import progress
from pipeline.base.signals import Interrupts
from pipeline.build.build import Built
from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.isa.answers import Answers, answers, load, save
from pipeline.model import Deployed, Model, OnnxModel
from pipeline.records.journal import Journal
from pipeline.run.distributed.launch import Processes
from pipeline.run.measuring import DEPLOYED, PREDICTIONS, DeployedFiles, evaluate_into
from pipeline.run.result import Result, StageRun
from pipeline.run.roundtrip import differing, save_exactly
from pipeline.run.scoring import Known, Scoring, scored
from pipeline.run.store.changes import Parts
from pipeline.run.store.key import Keys
from pipeline.run.store.store import READ, RESULT, Claim, Store, claimed
from pipeline.stage import Stage

LOG = logging.getLogger("shrinkline")


@dataclass
class Executor:
    """Makes the results of one run.

    Args:
        built: what the config names.
        store: where results are kept.
        journal: each step is written there.
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

    def __post_init__(self) -> None:
        run = self.journal.path.parent.name
        self.keys = Keys(self.built, pick_device(self.built.config.device), self.processes.world.size, run)
        self.deployed = DeployedFiles()

    def start(self, folder: Path) -> Result:
        """The model at the start of the chain, as it was built."""
        save_exactly(self.built.model, folder, self.built.config.folder)
        if isinstance(self.built.model, OnnxModel):
            self.built.model.close()  # what goes on is the copy
        return self._load(folder)

    def make(self, place: str, stage: Stage, use: str, incoming: Result, folder: Path) -> Result:
        """What a stage makes of a model; its files are put into `folder`."""
        self.interrupts.check()
        baseline = self._identity(self.baseline) if self.baseline else None
        parts = self.keys.stage(stage, use, self._identity(incoming), baseline)
        with claimed(self.store, self.journal, place, parts, self.keys.read_now) as claim:
            if not claim.cached:
                with claim.filling() as to:
                    self._run(stage, StageRun(place, incoming, claim.work), to)
            return self._result(claim, incoming, folder)

    def examine(self, place: str, result: Result, folder: Path) -> tuple[Deployed, Evaluation, str]:
        """The file that a model would be deployed as, its scores on test and validation, and the key of both.

        The files are put into `folder`.
        """
        self.interrupts.check()
        parts = self.keys.measure(self._identity(result))
        with claimed(self.store, self.journal, f"{place}, measured", parts) as claim:
            if not claim.cached:
                with claim.filling() as to:
                    size = self.built.config.batch
                    evaluate_into(to, result.model, self.built.task, size, partial(progress, self.console, LOG))
            link(claim.path / "measured", folder)
        return self.deployed.add(result.model, folder / DEPLOYED), Evaluation.load(folder / PREDICTIONS), claim.key

    def answer(self, place: str, result: Result, file: Deployed, batch: int, isa: Isa) -> tuple[Answers | None, str]:
        """What the file of a result answers on CPUs of a kind, and the key of that; see `answers` for the errors."""
        self.interrupts.check()
        parts = self.keys.target(self._identity(result), isa, batch)
        with claimed(self.store, self.journal, f"{place}, on {isa}", parts) as claim:
            if not claim.cached:
                with claim.filling() as to:
                    show = partial(progress, self.console, LOG)
                    save(answers(file, isa, self.built.task, batch, show, claim.work), to)
                    (to / RESULT).write_text("{}")
            return load(claim.path), claim.key

    def _run(self, stage: Stage, run: StageRun, to: Path) -> None:
        """Run a stage and write what it made into `to`."""
        set_seed(self.built.config.seed)
        incoming = run.incoming.model
        before = incoming.predict(incoming.example)
        ctx = self._context(stage, run)
        label = f"{self.built.config.folder.resolve()} {run.place} runs with {stage.model_dump_json()}"
        with self._together(stage, run), recorder().watch(label, lists=True) as seen:
            model = stage.run(incoming, ctx)
        if differing(before, incoming.predict(incoming.example)):
            fix = "Work on copy.deepcopy(model.module) and return dataclasses.replace(model, module=...)"
            raise StageError("run changed the model that it was given", expected="a new model", fix=fix)
        run.save(run.promised(stage, model), to, self.built.config.folder)
        if late := self.keys.read_late(seen, self.store.root, self.journal.path.parent):
            (to / READ).write_text(json.dumps(late))

    def _result(self, claim: Claim, incoming: Result, folder: Path) -> Result:
        """What lies in a stage's entry, linked into `folder`."""
        entry = json.loads((claim.path / RESULT).read_text())
        fields: dict[str, Any] = {name: entry[name] for name in ("reports", "seconds")}
        fields |= {name: tuple(entry.get(name, ())) for name in ("warnings", "notes", "uses")}
        comparisons = dict[str, Result]()
        for name in entry["comparisons"]:
            link(claim.path / "comparisons" / name, folder / "comparisons" / name / "model")
            comparisons[name] = self._load(folder / "comparisons" / name / "model")
        fields |= {"cached": claim.cached, "key": claim.key, "comparisons": comparisons}
        if entry["digest"] is None:
            return replace(incoming, measured_only=True, **fields)
        link(claim.path / "model", folder / "model")
        return replace(self._load(folder / "model", entry["digest"]), **fields)

    def _load(self, folder: Path, digest: str | None = None) -> Result:
        """A saved model; a file from outside is run within the limits of the config."""
        model, start = models.load(folder, self.built.config.folder, allow=None), self.built.model
        if isinstance(model, OnnxModel) and model.outside and isinstance(start, OnnxModel) and start.outside:
            model = replace(model, outside=model.outside._replace(limits=start.outside.limits))
        return Result(model, digest or folder_digest(folder), folder)

    def _identity(self, result: Result) -> Parts:
        return self.keys.model(result.digest, result.folder)

    def _context(self, stage: Stage, run: StageRun) -> Context:
        """The context of a stage, with the store and, where it trains, with the other processes."""
        baseline = self.baseline.model if self.baseline else None
        alone = run.context(self.built, baseline, self.deployed, self.interrupts, self.console)
        keep = partial(self._keep, run)
        if not stage.distributed:
            return replace(alone, kept=keep, scored=self._scoring(run.incoming))
        return replace(alone, kept=self.processes.share(keep), world=self.processes.world)

    def _scoring(self, incoming: Result) -> Scoring:
        """What tells how the model that comes in, or the baseline, scores elsewhere."""
        known = [self._known(result) for result in (incoming, self.baseline) if result]
        return partial(scored, known, partial(progress, self.console, LOG))

    def _known(self, result: Result) -> Known:
        reference = self.baseline
        return Known(
            result.model, self.built, lambda: result.evaluation, lambda: reference.evaluation if reference else None
        )

    def _together(self, stage: Stage, run: StageRun) -> AbstractContextManager[None]:
        """Have the other processes run a stage along, where it is one for all."""
        if not stage.distributed:
            return nullcontext()
        baseline = self.baseline.folder if self.baseline else None
        folders = {"incoming": run.incoming.folder, "baseline": baseline, "work": run.work}
        order: Parts = {name: str(folder.resolve()) if folder else None for name, folder in folders.items()}
        name, size = shlex.quote(str(self.journal.path.parent)), self.processes.world.size
        again = f"`shrink resume {name} --processes {size}` goes on"
        return self.processes.together({"place": run.place, **order}, again)

    def _keep(self, run: StageRun, what: str, model: Model, parts: Parts, make: Callable[[Path], None]) -> Path:
        """The folder that `make` has filled for a model, through the store; linked into the work folder."""
        whole = self.keys.kept(what, self._identity_of(model, run), parts, make)
        with claimed(self.store, self.journal, f"{run.place}, {what}", whole) as claim:
            if not claim.cached:
                with claim.filling() as to:
                    (to / "kept").mkdir()
                    make(to / "kept")
            target = run.work / f"kept-{claim.key[:16]}"
            link(claim.path / "kept", target)
        run.uses.append(claim.key)
        return target

    def _identity_of(self, model: Model, run: StageRun) -> Parts:
        """What a model is in keys; one that is no result is saved for it."""
        for result in (run.incoming, self.baseline):
            if result and result.model is model:
                return self._identity(result)
        with TemporaryDirectory(dir=run.work) as name:
            model.save(Path(name))
            return self.keys.model(folder_digest(Path(name)), Path(name))
