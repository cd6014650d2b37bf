"""One chain, forwards: make the baseline, measure it; then for each stage run, save, measure, record, log.

>>> from pipeline.runner import run                                     # doctest: +SKIP
>>> record = run("configs/digits/compress.yaml", overrides=["stages.0.epochs=20"])
>>> record.final.retention, record.final.file
"""

import logging
import random
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
import yaml
from pydantic import JsonValue, TypeAdapter, ValidationError
from rich.console import Console

from pipeline.build import Built, build
from pipeline.config import PipelineConfig, load_config
from pipeline.deploy import deploy
from pipeline.environment import describe
from pipeline.errors import ConfigError, ShrinkError, StageError, blame
from pipeline.gate import judge, verdict
from pipeline.measure.accuracy import BATCH_SIZE, Evaluation, evaluate_task
from pipeline.measure.model import Known, measure
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.record import Failure, Measure, ModelRecord, Record, StageRecord
from pipeline.report.progress import progress
from pipeline.stage import Context, Stage
from pipeline.store import commit, differing
from pipeline.task import kind
from pipeline.tracking import Tracking, open_tracking

LOG = logging.getLogger("shrinkline")

JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


def run(
    config: str | Path | PipelineConfig,
    *,
    overrides: Sequence[str] = (),
    runs: str | Path = "runs",
    register: str | None = None,
    track: bool = True,
    console: Console | None = None,
) -> Record:
    """Run a pipeline file and give its record; the run folder `runs/<run>` holds all that it made.

    Args:
        config: a pipeline file, or a config made in Python.
        overrides: such as "stages.1.temperature=2".
        runs: where run folders are made; the default MLflow database lies there too.
        register: a name under which the last model goes into MLflow's registry.
        track: log to MLflow.
        console: where progress is shown; standard error by default.

    Raises:
        ConfigError: the config cannot work; nothing was run.
        StageError: a stage failed; the record of what came before is in the run folder.
    """
    source = None
    if not isinstance(config, PipelineConfig):
        config, source = load_config(Path(config), overrides)
    set_seed(config.seed)  # the task may draw a split and the model its first weights
    built = build(config, source)
    pick_device(built.config.device)  # refuses before any work a GPU that is not there
    console = console or Console(stderr=True)
    with ExitStack() as stack:
        record = start(built, Path(runs))
        stack.enter_context(_log_to(Path(record.folder) / "run.log"))
        tracking = stack.enter_context(open_tracking(record, Path(runs), register)) if track else None
        return Run(built, record, console, tracking).forwards()


def start(built: Built, runs: Path) -> Record:
    """Make the run folder with the resolved config, and the record to fill."""
    now = datetime.now(UTC)
    name = f"{now:%Y%m%d-%H%M%S}-{built.config.name}-{uuid4().hex[:4]}"
    folder = (runs / name).resolve()
    with blame(ConfigError, f"the folder for runs, {runs}", fix="Choose another with --runs"):
        folder.mkdir(parents=True)
    config = built.config.model_dump(mode="json", exclude_none=True)
    for key, chain in (("baseline", built.baseline), ("stages", built.stages)):
        config[key] = [{"use": entry["use"], **_settings(s)} for entry, (_, s) in zip(config[key], chain, strict=True)]
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    splits = built.task.splits
    data: dict[str, Any] = {n: {"examples": len(splits[n]), "digest": s.digest} for n, s in built.data.items()}
    return Record(
        run=name,
        folder=str(folder),
        started=now.isoformat(timespec="seconds"),
        config=config,
        seed=built.config.seed,
        data=data,
        environment=describe(built.config.folder),
        warnings=list(built.warnings),
    )


@dataclass
class Run:
    """The state of one run while it lasts."""

    built: Built
    record: Record
    console: Console
    tracking: Tracking | None
    baseline: Known | None = None
    deployed: dict[int, tuple[Model, OnnxModel]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.record.folder)

    def forwards(self) -> Record:
        """The whole chain; whatever ends it, the record says how far it came."""
        for warning in self.record.warnings:
            LOG.warning(warning)
        try:
            self.baseline = known = self._make_baseline()
            for position, (place, stage) in enumerate(self.built.stages):
                known = self._stage(position, place, stage, known)
        except ShrinkError as error:
            self.record.failure = Failure(where=error.where, message=str(error), exit_code=error.exit_code)
            self._keep()
            raise
        self.record.gates = judge(self.built.config.budget, known.measure)
        self.record.verdict = verdict(self.record.gates)
        self._keep()
        if self.tracking:
            self.tracking.finish(self.record, known.deployed)
        return self.record

    def _make_baseline(self) -> Known:
        """Run the `baseline:` chain and measure what it made: the reference of everything after it."""
        began, model = time.monotonic(), self.built.model
        reports: dict[str, Any] = {}
        for i, (place, stage) in enumerate(self.built.baseline):
            folder = self.folder / "baseline" / f"{i}-{_short(stage, self.built.config.baseline[i].use)}"
            model, found = self._run_stage(place, stage, model, folder)
            reports |= {f"{i}.{name}": value for name, value in found.items()}
        place = self.built.baseline[-1][0] if self.built.baseline else "model"
        known = self._examine(model, self.folder / "baseline", place, None)
        self.record.baseline = ModelRecord(
            **known.measure.model_dump(), **self._located(known, time.monotonic() - began), reports=reports
        )
        self._keep()
        return known

    def _stage(self, position: int, place: str, stage: Stage, before: Known) -> Known:
        """Run one stage, then measure, record and log what came out."""
        began = time.monotonic()
        name = self.built.config.stages[position].use
        folder = self.folder / "stages" / f"{position}-{_short(stage, name)}"
        model, reports = self._run_stage(place, stage, before.model, folder)
        if model is before.model:  # only measured; against the baseline, which it may be itself
            found = self._measure(before.deployed, before.evaluation, before)
            known = replace(before, measure=found)
        else:
            known = self._examine(model, folder, place, before)
            if known.digest == before.digest:
                self._warn(f"{place}: it changed nothing, the model is the same to the byte")
        latency: Any = reports.pop("latency", [])
        with blame(StageError, place, fix="A report named `latency` is a list of dictionaries"):
            made = StageRecord(
                **known.measure.model_dump(),
                **self._located(known, time.monotonic() - began),
                position=position,
                name=name,
                settings=_settings(stage),
                changed=known.digest != before.digest,
                reports=reports,
                latency=latency,
            )
        self.record.stages.append(made)
        self._keep()
        return known

    def _run_stage(self, place: str, stage: Stage, model: Model, folder: Path) -> tuple[Model, dict[str, Any]]:
        """Give a stage its context and run it."""
        LOG.info("%s", place)
        work = folder / "work"
        reports: dict[str, Any] = {}
        work.mkdir(parents=True, exist_ok=True)
        set_seed(self.built.config.seed)
        ctx = self._context(work, reports)
        given = model.predict(model.example)
        with blame(StageError, place):
            made = stage.run(model, ctx)
        if differing(given, model.predict(model.example)):
            fix = "Work on copy.deepcopy(model.module) and return dataclasses.replace(model, module=...)"
            raise StageError("run changed the model that it was given", where=place, expected="a new model", fix=fix)
        if not isinstance(made, TorchModel | OnnxModel):
            raise StageError(f"run gave {type(made).__name__}", where=place, expected="a TorchModel or an OnnxModel")
        return made, reports

    def _context(self, work: Path, reports: dict[str, Any]) -> Context:
        task = self.built.task
        return Context(
            train=task.train,
            calibration=task.calibration,
            validation=task.validation,
            loss=task.loss,
            decode=task.decode,
            score=task.score,
            augment=task.augment,
            baseline=self.baseline.model if self.baseline else None,
            directory=work,
            device=pick_device(self.built.config.device),
            seed=self.built.config.seed,
            log=LOG,
            progress=partial(progress, self.console, LOG),
            report=partial(keep_report, reports),
            deployed=self._deployed,
        )

    def _deployed(self, model: Model) -> OnnxModel:
        """The file that a model would be deployed as; an ONNX form is its own."""
        if isinstance(model, OnnxModel):
            return model
        if id(model) not in self.deployed:
            path = self.folder / "deployed" / f"{len(self.deployed)}.onnx"
            # The model is kept beside its file: an id alone could be given to another object.
            self.deployed[id(model)] = (model, deploy(model, path))
        return self.deployed[id(model)][1]

    def _examine(self, model: Model, folder: Path, place: str, before: Known | None) -> Known:
        """Commit a new model and measure it in the form in which it would be deployed."""
        with blame(StageError, place):
            model, digest = commit(model, folder / "model", self.built.config.folder)
            deployed = self._deployed(model)
            task = self.built.task
            batches = -(-len(task.test) // BATCH_SIZE)
            with progress(self.console, LOG, "measuring", batches) as advance:
                evaluation = evaluate_task(model, task, task.test, advance)
            evaluation.save(folder / "predictions.safetensors")
            found = self._measure(deployed, evaluation, before)
        return Known(model, folder, digest, deployed, evaluation, found)

    def _measure(self, deployed: OnnxModel, evaluation: Evaluation, before: Known | None) -> Measure:
        given: dict[str, Any] = {"logits": self.built.task.logits, "seed": self.built.config.seed}
        return measure(deployed, evaluation, baseline=self.baseline, before=before, **given)

    def _located(self, known: Known, seconds: float) -> dict[str, Any]:
        """Where a model lies, relative to the run folder."""
        return {
            "seconds": round(seconds, 3),
            "form": known.model.form,
            "folder": str((known.folder / "model").relative_to(self.folder)),
            "file": str(known.deployed.path.relative_to(self.folder)),
            "digest": known.digest,
            "predictions": str((known.folder / "predictions.safetensors").relative_to(self.folder)),
        }

    def _warn(self, text: str) -> None:
        LOG.warning(text)
        self.record.warnings.append(text)

    def _keep(self) -> None:
        self.record.save()
        if self.tracking:
            self.tracking.update(self.record)


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


def set_seed(seed: int) -> None:
    """Seed every generator that a stage may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def pick_device(name: str) -> torch.device:
    """The device that the config names. Raises ConfigError for a GPU that is not there."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        fix = "Set `device: auto` or install a CUDA build of torch"
        raise ConfigError("there is no CUDA device", where="device", fix=fix)
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def _settings(stage: Stage) -> dict[str, Any]:
    return stage.model_dump(mode="json")


def _short(stage: Stage, use: str) -> str:
    return Path(use).stem if use.endswith(".py") else use


def _log_to(path: Path) -> AbstractContextManager[None]:
    stack = ExitStack()
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOG.addHandler(handler)
    stack.callback(handler.close)
    stack.callback(LOG.removeHandler, handler)
    return stack  # type: ignore[return-value]
