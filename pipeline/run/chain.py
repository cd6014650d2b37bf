"""One chain, forwards: make the baseline, measure it; then for each stage obtain its result, measure, record, log."""

import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.base.formatting import few
from pipeline.build.build import Built
from pipeline.errors import Interruption, ResourceError, ShrinkError, StageError, blame, is_exhausted
from pipeline.forms.text import tokenizer
from pipeline.gate.choice.choose import chosen_in
from pipeline.gate.expected import Expected, load_expected
from pipeline.gate.judge import judge, unfinished, verdict, warnings_of
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.batching import batch_warning
from pipeline.measure.classes import absent
from pipeline.measure.flips import flipped
from pipeline.measure.gain import are_shares, gain_of, gain_text, is_clear, seeds_of
from pipeline.measure.interface import interface
from pipeline.measure.measurement import MeasuredModel, measure
from pipeline.measure.statistics.pairs import Scores
from pipeline.model import Deployed
from pipeline.records import test_uses
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import Comparison, Gain, StageRecord
from pipeline.records.record import Failure, Record
from pipeline.report.files import write_files
from pipeline.report.mlflow.run import Projection
from pipeline.report.mlflow.sync import graph_of
from pipeline.run import disk
from pipeline.run.executor import Executor
from pipeline.run.proofs import faster
from pipeline.run.proofs.target import elsewhere, missing
from pipeline.run.recorded import LATENCY, comparison, doubts, located, now, remarks
from pipeline.run.result import Result
from pipeline.stage import Stage

LOG = logging.getLogger("shrinkline")

Times = dict[tuple[str, str | None], str]
"""When the results of a resumed run were measured first, by place and key."""


@dataclass
class Run:
    """The state of one run while it lasts."""

    built: Built
    record: Record
    executor: Executor
    tracking: Projection | None
    earlier: Times = field(default_factory=dict)
    baseline: MeasuredModel | None = None

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.record.folder)

    def forwards(self, benchmarks: bool = True) -> Record:
        """The whole chain; whatever ends it, journal and record say how far it came.

        Args:
            benchmarks: run the stages that are `host_bound` too. A comparison leaves them out and measures its models
                afterwards, in turns; see `latency_record`.
        """
        for warning in self.record.warnings:
            LOG.warning(warning)
        for note in self.built.loading:
            self._note(note)
        try:
            expected = load_expected(self.built.config.budget, self.built.config.folder)
            return self._judged(self._chain(benchmarks), expected)
        except ShrinkError as error:
            ended = self._ended(error)
            if ended is error:
                raise
            raise ended from error
        except (OSError, MemoryError) as error:
            if not is_exhausted(error):
                raise
            raise self._ended(ResourceError(f"disk or memory ran out: {error}", where=str(self.folder))) from error

    def _judged(self, last: MeasuredModel, expected: Expected | None) -> Record:
        self._look_at(last)
        self.record.gates = judge(self.built.config.budget, self.record, expected)
        self.record.verdict = verdict(self.record.gates)
        config = self.built.config
        self.record.chosen = chosen_in(self.record, config.choosing, config.budget)
        doubtful = doubts(self.built.task, self.record, self.baseline, last)
        for text in (*warnings_of(self.record.gates), *missing(self.built, self.record), *doubtful):
            self._warn(text)
        self._keep()
        self.executor.journal.write("end", verdict=self.record.verdict)
        if self.tracking:  # first, for another process logs the model while this one writes the reports
            self.tracking.finish(self.record, graph_of(last.deployed))
        write_files(self.record)
        return self.record

    def _look_at(self, last: MeasuredModel) -> None:
        """Keep what whoever deploys the last model has to know, and what it lost against the baseline."""
        task = self.built.task
        self.record.interface = interface(last.deployed, task)
        if self.baseline:
            evaluations = self.baseline.evaluation, last.evaluation
            self.record.flipped = flipped(task, *evaluations, self.folder, self._warn)
        without = absent(last.evaluation, task.labels, task.logits) if self.built.config.budget.worst_class else []
        if without:
            self._warn(f"budget: worst_class says nothing of {few(without, 5)}: the test split has no example of it")

    def _chain(self, benchmarks: bool) -> MeasuredModel:
        if text := tokenizer.canonical(self.built.task.tokenizer):  # for `shrink package`, which has no task
            (self.folder / tokenizer.FILE).write_text(text)
        self.baseline = measured_model = self._make_baseline(benchmarks)
        model = measured_model
        result = Result(model.model, model.digest, model.folder, evaluation=model.evaluation)
        self.executor.baseline = result
        for position, use, place, stage, folder in self._steps("stages", benchmarks):
            before, result = measured_model, self.executor.make(place, stage, use, result, folder)
            measured_model = self._examined(place, result, folder, before)
            result = replace(result, evaluation=measured_model.evaluation)
            result = faster.proven(self.executor, place, result, before, measured_model)
            self._record(position, use, place, stage, result, measured_model)
            faster.refuse(place, result.kernels, self.built.config.slower)
        return measured_model

    def _steps(self, chain: str, benchmarks: bool) -> Iterator[tuple[int, str, str, Stage, Path]]:
        """Position, name in the config, place, stage and folder of each stage of a chain that is to run."""
        entries, stages = getattr(self.built.config, chain), getattr(self.built, chain)
        for i, (entry, (place, stage)) in enumerate(zip(entries, stages, strict=True)):
            if benchmarks or not stage.host_bound:
                name = Path(entry.use).stem if entry.use.endswith(".py") else entry.use
                yield i, entry.use, place, stage, self.folder / chain / f"{i}-{name}"

    def _make_baseline(self, benchmarks: bool) -> MeasuredModel:
        """Run the `baseline:` chain and measure what it made: the reference of everything after it."""
        result, reports, seconds = self.executor.start(self.folder / "start" / "model"), dict[str, Any](), 0.0
        place, cached, keys = "model", False, list[str | None]()
        for i, use, place, stage, folder in self._steps("baseline", benchmarks):
            result = self.executor.make(place, stage, use, result, folder)
            reports |= {f"{i}.{name}": value for name, value in result.reports.items()}
            seconds, cached = seconds + result.seconds, result.cached
            keys += (*result.uses, result.key)
            self._tell(place, result.warnings, result.notes)
            if result.comparisons:
                self._warn(f"{place}: what it compares with is not measured in `baseline:`. Compare in `stages:`")
        measured_model = self._examined(place, result, self.folder / "baseline", None)
        if reason := measured_model.measure.macs_reason:
            self._warn(f"{place}: {reason}")
        whole = replace(result, seconds=seconds, cached=cached)
        fields = {**measured_model.measure.model_dump(), **located(self.folder, measured_model, whole, keys)}
        finished = self._finished(place, result.key)
        self.record.baseline = ModelRecord(**fields, finished=finished, reports=reports)
        self._keep()
        return measured_model

    def _examined(self, place: str, result: Result, folder: Path, before: MeasuredModel | None) -> MeasuredModel:
        """What is known of a result; of one that only measured, what was known before."""
        arguments: dict[str, Any] = {"task": self.built.task, "seed": self.built.config.seed}
        arguments |= {"baseline": self.baseline, "before": before}
        if before and result.measured_only:
            return replace(before, measure=measure(before.deployed, before.evaluation, **arguments))
        deployed, evaluation, key = self._measured(place, result, folder)
        with blame(StageError, place):
            figures = measure(deployed, evaluation, **arguments)
        if text := batch_warning(evaluation, is_set=self.built.config.batch is not None):
            self._warn(f"{place}: {text}")
        if before and result.digest == before.digest:
            self._warn(f"{place}: it changed nothing, the model is the same to the byte")
        return MeasuredModel(result.model, result.folder, folder, key, result.digest, deployed, evaluation, figures)

    def _measured(self, place: str, result: Result, folder: Path) -> tuple[Deployed, Evaluation, str]:
        """What the executor finds out about a model, which is counted as a look at the test split."""
        examination = self.executor.examine(place, result, folder)
        test = self.built.data["test"].digest
        self.record.test_uses = test_uses.note_use(self.folder.parent, test, result.digest, self.record.run)
        return examination

    def _record(self, position: int, use: str, place: str, stage: Stage, result: Result, model: MeasuredModel) -> None:
        """Add a stage's record, with the models that it has compared with its own."""
        if self.executor.keys.is_own(stage):
            result = replace(result, cached=False)  # what a resumed run finds of it is what it measured itself
        self._tell(place, (*result.warnings, *remarks(stage, result, model, self.record.final)), result.notes)
        comparisons, others = self._compared(place, result)
        gain = self._gained(place, stage, model, others)
        there = elsewhere(self.executor, place, result, model, self.baseline, self.record.final)
        self._tell(place, there.warnings, there.notes)
        reports = dict(result.reports)
        latency: Any = reports.pop("latency", [])
        with blame(StageError, place, fix=LATENCY):
            stage_record = StageRecord(
                **model.measure.model_dump(),
                **located(self.folder, model, result, [*there.keys, *(other.key for other in comparisons.values())]),
                finished=self._finished(place, result.key),
                position=position,
                name=use,
                settings=stage.model_dump(mode="json"),
                changed=not self._is_last(result.digest),
                reports=reports,
                latency=latency,
                comparisons=comparisons,
                seeds=seeds_of(model.evaluation.scores.numpy(), _scores(others)),
                gain=gain,
                target=there.target,
                kernels=result.kernels,
            )
        self.record.stages.append(stage_record)
        self._keep()

    def _compared(self, place: str, result: Result) -> tuple[dict[str, Comparison], dict[str, Evaluation]]:
        """The models beside a stage's own, measured like it; and what they gave on the test split."""
        comparisons, others = dict[str, Comparison](), dict[str, Evaluation]()
        for name, other in result.comparisons.items():
            deployed, others[name], key = self._measured(f"{place}, {name}", other, other.folder.parent)
            comparisons[name] = comparison(self.folder, other, deployed, others[name], key)
        return comparisons, others

    def _gained(self, place: str, stage: Stage, model: MeasuredModel, others: dict[str, Evaluation]) -> Gain | None:
        """What distillation brought, where there is a control; said in a note, or in a warning where it is doubtful."""
        own, scores = model.evaluation.scores.numpy(), _scores(others)
        reference = self.baseline.evaluation.scores.numpy() if self.baseline else None
        metrics = {name: evaluation.resampled for name, evaluation in {"": model.evaluation, **others}.items()}
        if gain := gain_of(own, scores, reference, self.record.seed, metrics):
            teaches = stage.taught_by_baseline(incoming=not self.baseline or self._is_last(self.baseline.digest))
            teacher = "teacher" if teaches else "baseline"
            text = gain_text(gain, examples=len(own), shares=are_shares(own, *scores.values()), teacher=teacher)
            (self._note if is_clear(gain) else self._warn)(f"{place}: {text}")
        return gain

    def _is_last(self, digest: str) -> bool:
        """Whether the last model that was measured is that one."""
        return self.record.final is not None and self.record.final.digest == digest

    def _finished(self, place: str, key: str | None) -> str:
        """When this was measured first; journalled, so that MLflow gets the same time however often it is told."""
        finish_time = self.earlier.get((place, key))
        if finish_time is None:
            finish_time = now()
            self.executor.journal.write("measured", place=place, key=key, finished=finish_time)
        return finish_time

    def _ended(self, error: ShrinkError) -> ShrinkError:
        """Keep in journal and record why the run ends; gives the error to raise, with how to go on."""
        again = f"`shrink resume {shlex.quote(str(self.folder))}` goes on"
        if self.built.config.task.is_lent or self.built.config.model.is_lent:
            again = "the same call takes what is done from the store"
        interrupts = self.executor.interrupts
        if isinstance(error, StageError) and interrupts.requested():  # Ctrl-C reaches a stage's own processes too
            error = Interruption(error.found, where=error.where)
        if isinstance(error, Interruption):
            error.fix, error.exit_code = again, interrupts.exit_code
        elif isinstance(error, ResourceError):
            error.fix = f"{error.fix}. {disk.needs(self.built, self.folder.parent)}; {again}".lstrip(". ")
        self.record.failure = Failure(where=error.where, message=str(error), exit_code=error.exit_code)
        self.record.gates = unfinished(self.built.config.budget, self.record)
        event = "stopped" if isinstance(error, Interruption) else "failed"
        with suppress(*([OSError] if isinstance(error, ResourceError) else [])):  # the disk may be full for these too
            self.executor.journal.write(event, where=error.where, message=str(error))
            self._keep()
        write_files(self.record)
        return error

    def _tell(self, place: str, warnings: Sequence[str], notes: Sequence[str]) -> None:
        for text in warnings:
            self._warn(f"{place}: {text}")
        for text in notes:
            self._note(f"{place}: {text}", is_known=f"{place}: {text}" in self.built.notes)

    def _note(self, text: str, is_known: bool = False) -> None:
        if not is_known:  # or it was said before all work
            LOG.info(text)
        self.record.notes.append(text)

    def _warn(self, text: str) -> None:
        """Warn, once of the same: a stage may say again what it has said before all work."""
        if text not in self.record.warnings:
            LOG.warning(text)
            self.record.warnings.append(text)

    def _keep(self) -> None:
        self.record.save()
        if self.tracking:
            self.tracking.update(self.record)


def _scores(evaluations: dict[str, Evaluation]) -> dict[str, Scores]:
    return {name: evaluation.scores.numpy() for name, evaluation in evaluations.items()}
