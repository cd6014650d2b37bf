"""Latency of all strategies in turns, after everything else is done: nothing else then takes the cores."""

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from rich.console import Console

from pipeline import model as models
from pipeline.base.progress import progress
from pipeline.base.signals import Interrupts
from pipeline.build.build import Built
from pipeline.compare.children import Ending, Order
from pipeline.errors import ResourceError, StageError, blame
from pipeline.measure.accuracy import Evaluation
from pipeline.model import Model
from pipeline.records.folder import verified
from pipeline.records.parts.models import ModelRecord
from pipeline.records.record import Failure, Record
from pipeline.run.measuring import DeployedFiles
from pipeline.run.recorded import latency_record
from pipeline.run.result import LOG, Result, StageRun
from pipeline.run.scoring import Known, scored
from pipeline.stage import Stage


@dataclass(frozen=True)
class Contender:
    """A model to time: the run that made it, and the stage of that run that asks for it."""

    order: Order
    built: Built
    record: Record
    position: int

    @property
    def title(self) -> str:
        """Tells it from the others."""
        several = sum(stage.host_bound for _, stage in self.built.stages) > 1
        return self.order.title + (f", stages[{self.position}]" if several else "")

    @property
    def stage(self) -> Stage:
        """The stage that measures."""
        return self.built.stages[self.position][1]

    @property
    def model(self) -> ModelRecord | None:
        """What comes in at the stage: the last model before it."""
        before = [stage for stage in self.record.stages if stage.position < self.position]
        return before[-1] if before else self.record.baseline

    @property
    def rank(self) -> str:
        """What has to be equal for two to be timed in turns: how, and beside what baseline."""
        baseline = self.record.baseline
        shape = baseline and (baseline.size_bytes, baseline.params, baseline.macs)
        return json.dumps([type(self.stage).__name__, self.stage.model_dump(mode="json"), shape])


@dataclass
class Timed:
    """What timing had to say: warnings, and which runs could not be timed."""

    warnings: list[str] = field(default_factory=list)
    failures: dict[Order, Failure] = field(default_factory=dict)


def contenders(endings: Sequence[Ending], built: Mapping[str, Built]) -> list[Contender]:
    """Every run that came to its end, once for each stage of it that measures on this machine.

    Args:
        endings: of all runs.
        built: by the strategy's name.
    """
    return [
        Contender(ending.order, built[ending.order.strategy.name], ending.record, position)
        for ending in endings
        if ending.record and not ending.failure
        for position, (_, stage) in enumerate(built[ending.order.strategy.name].stages)
        if stage.host_bound
    ]


def time_all(all_contenders: Sequence[Contender], folder: Path, interrupts: Interrupts, console: Console) -> Timed:
    """Time all contenders, those that can be compared in turns, and put it into their records.

    A model that cannot be timed is a failure of its run, whose other figures stay.

    Args:
        all_contenders: what to time.
        folder: for what is written meanwhile.
        interrupts: whether to stop.
        console: for progress.
    """
    groups, timed = defaultdict[str, list[Contender]](list), Timed()
    for contender in all_contenders:
        groups[contender.rank].append(contender)
    for group in groups.values():
        interrupts.check()
        _time(group, folder, interrupts, console, timed)
    runs = {contender.order for contender in all_contenders}
    if any({contender.order for contender in group} != runs for group in groups.values()):
        differ = "their benchmark stages or their baselines differ"
        timed.warnings.append(f"not all strategies were timed in turns: {differ}")
    return timed


def _time(group: Sequence[Contender], folder: Path, interrupts: Interrupts, console: Console, timed: Timed) -> None:
    began = time.monotonic()
    rows: dict[str, JsonValue] = {}
    try:
        with blame(StageError, "timing"):
            rows = _measure(group, folder, interrupts, console, timed.warnings)
    except (StageError, ResourceError) as error:  # of the baseline, or of the only model: what was trained stays
        rows = {contender.title: {"failure": str(error)} for contender in group}
    for contender in group:
        try:
            _put(contender, rows[contender.title], (time.monotonic() - began) / len(group))
        except StageError as error:
            text = f"it could not be timed: {error}"
            failure = Failure(where=contender.title, message=text, exit_code=StageError.exit_code)
            timed.failures[contender.order] = failure


def _measure(
    group: Sequence[Contender], folder: Path, interrupts: Interrupts, console: Console, warnings: list[str]
) -> dict[str, JsonValue]:
    """The rows of each, by its title; what the stage warns of is added to `warnings`."""
    first, files = group[0], DeployedFiles()
    loaded = {one.title: _model(files, one.record, one.model, one.built.config.folder) for one in group}
    baseline = _model(files, first.record, first.record.baseline, first.built.config.folder)
    run = StageRun("benchmark", Result(loaded[first.title], "", folder), folder / "latency", warnings=warnings)
    known = [_known(one, loaded[one.title]) for one in group]
    known.append(replace(known[0], model=baseline, evaluation=known[0].baseline))
    scoring = partial(scored, known, partial(progress, console, LOG))
    ctx = run.context(first.built, baseline, files, interrupts, console)
    return first.stage.measure(loaded, replace(ctx, scored=scoring))


def _known(contender: Contender, model: Model) -> Known:
    """A contender's model with what it, and the baseline of its run, gave where they were measured."""
    own, baseline = (
        partial(_evaluation, contender.record, one) for one in (contender.model, contender.record.baseline)
    )
    return Known(model, contender.built, own, baseline)


def _evaluation(record: Record, model_record: ModelRecord | None) -> Evaluation | None:
    return Evaluation.load(verified(record, model_record, "predictions")) if model_record else None


def _put(contender: Contender, rows: JsonValue, seconds: float) -> None:
    """Put rows into a run's record, where the stage stands. Raises StageError where there are none."""
    if isinstance(rows, dict):
        raise StageError(str(rows.get("failure", "it gave no rows")))
    use = contender.built.config.stages[contender.position].use
    settings: Any = contender.stage.model_dump(mode="json")
    stage_record = latency_record(contender.record, contender.position, use, settings, rows, round(seconds, 3))
    contender.record.stages.append(stage_record)
    contender.record.stages.sort(key=lambda stage: stage.position)


def _model(files: DeployedFiles, record: Record, model_record: ModelRecord | None, code: Path) -> Model:
    """A run's model, with the file that it is deployed as."""
    if model_record is None:
        raise StageError("the run has no model", where=record.folder)
    model = models.load(verified(record, model_record, "folder"), code, allow=None)
    files.add(model, verified(record, model_record, "file"))
    return model
