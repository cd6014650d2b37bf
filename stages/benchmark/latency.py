"""Latency of the model beside the baseline's, in fresh and interleaved processes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from pipeline.base.batches import Inputs
from pipeline.base.hardware import cores
from pipeline.context import Context, Preview
from pipeline.errors import ConfigError, Note
from pipeline.fit import forms
from pipeline.measure.statistics.ratios import FEWEST_ROUNDS
from pipeline.model import Model, OnnxModel
from pipeline.stage import AnyForm, Stage
from stages.benchmark.answers.agreement import Examination
from stages.benchmark.answers.scores import Scores
from stages.benchmark.checks import check_rebuilt, check_runtimes
from stages.benchmark.conversion import Conversion
from stages.benchmark.hosts.machines import Machines
from stages.benchmark.named import Runtimes
from stages.benchmark.preparation import Preparation, generation
from stages.benchmark.processes.process import Spec
from stages.benchmark.runtime import Runtime
from stages.benchmark.timing.effort import EFFORTS, STARTUPS, decided
from stages.benchmark.timing.load import warn_of_load
from stages.benchmark.timing.measuring import Plan
from stages.benchmark.timing.percentiles import Method
from stages.benchmark.timing.rows import Cell, failure, remarks, rows_of

Count = Annotated[int, Field(ge=1)]


class Latency(Stage):
    """The same model, and in the record its latency as a ratio to the baseline's with a verdict.

    Put it where a claim of speed is made. Each round starts a process for the baseline, one for the model and one more
    for the baseline, in an order that changes; the two baselines tell the noise of the machine, below which no claim is
    made. Where strategies are compared, the models of all of them are in the same rounds.

    Example:
        - {use: benchmark.latency, threads: [1, 2], batch: [1, 8]}

    Reference: Tomas Kalibera and Richard Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013.
    """

    host_bound: ClassVar[bool] = True

    runtimes: Runtimes = Field(
        ("onnxruntime",),
        validate_default=True,
        description="where to run: names, or {use: NAME, ...}, as `shrink runtimes` lists them",
    )
    threads: tuple[Count, ...] = Field((1,), min_length=1, description="threads of one inference, each is measured")
    batch: tuple[Count, ...] = Field((1,), min_length=1, description="examples of one inference, each is measured")
    effort: Literal["quick", "full"] | None = Field(
        None,
        description="quick: 64 samples and 2 s at least, in 5 rounds; full: 662 and 10 s, in 10. It decides `rounds`, "
        "`seconds` and `iterations`; percentiles are by early stopping, and start-up is over 10 processes",
    )
    rounds: int = Field(5, ge=1, description="processes of each model; an interval needs 3")
    seconds: float = Field(0.3, gt=0, description="time to sample in each process")
    iterations: int | None = Field(None, ge=1, description="samples of each process, instead of seconds")
    concurrency: tuple[Count, ...] = Field(
        (), description="requests at a time for which throughput is measured, such as [1, 4]; none unless given"
    )
    warmup: int = Field(20, ge=0, description="inferences before the samples, in each process")
    examples: int = Field(
        64, ge=0, description="calibration examples that other runtimes answer beside ONNX Runtime before; 0 for none"
    )
    score: bool = Field(True, description="score test and validation in each runtime")
    drop: float = Field(
        0.01,
        ge=0,
        description="of the test score, at most, itself and not its interval, for a runtime that decides otherwise, "
        "without a limit of the budget on retention or drop",
    )

    @model_validator(mode="before")
    @classmethod
    def _decided(cls, settings: Any) -> Any:
        """What `effort` decides; refuse where it is given too, as something else."""
        known = isinstance(settings, Mapping) and settings.get("effort") in [*EFFORTS]
        return decided(settings) if known else settings

    def check(self, before: Sequence[Stage], preview: Preview) -> Iterable[str]:
        """Refuse a runtime that is not here or does not take the form; warn of too many threads, too few rounds."""
        form: type = type(preview.model)
        for stage in before:
            form = forms(type(stage))[1] or form
        yield from check_runtimes(self.runtimes, form, max(self.threads))
        check_rebuilt(self.runtimes, preview.model)
        size = preview.model.batch if isinstance(preview.model, OnnxModel) else None
        if size and {*self.batch} != {size}:
            raise ConfigError(f"`batch` is {[*self.batch]}, and the file takes {size} at a time", expected=f"[{size}]")
        if not all(stage.timeable() for stage in before):
            raise ConfigError("a beam search is not timed", expected="`beams: 1` of export.seq2seq")
        devices = [runtime.on.name for runtime in self.runtimes if runtime.on and runtime.on.is_far]
        if len(devices) < len(self.runtimes) and max(self.threads) > (count := cores()):
            yield f"`threads` has {max(self.threads)} and this machine {count} cores: threads will wait for each other"
        for name in dict.fromkeys(devices):
            yield Note(f"{name}: what is installed there is not in the key, so figures of an earlier run may be kept")
        if self.rounds < FEWEST_ROUNDS:
            yield f"`rounds` is {self.rounds}: with fewer than {FEWEST_ROUNDS} every comparison is inconclusive"

    def timed_in(self) -> list[dict[str, JsonValue]]:
        """One for each runtime, number of threads and batch."""
        cells = product(self.runtimes, self.threads, self.batch)
        return [place(runtime, threads, batch) for runtime, threads, batch in cells]

    def run(self, model: AnyForm, ctx: Context) -> AnyForm:
        """The model itself. Raises StageError when a process fails or the runtime cannot run this form."""
        ctx.report("latency", self.measure({"model": model}, ctx)["model"])
        return model

    def measure(self, models: Mapping[str, Model], ctx: Context) -> dict[str, JsonValue]:
        """The latency rows of each model, all from the same rounds; `{"failure": message}` for one that fails.

        Starts a process runtimes x threads x batch x rounds x (models + 2) times, one at a time; each takes its start,
        warm-up and `seconds`. Throughput takes a process more for each model, round and number of requests.

        Args:
            models: by name, which is a label and may be any text.
            ctx: with the baseline that the ratios are to.

        Raises:
            StageError, ResourceError: the baseline failed, or the only model.
            Interruption: a stop was asked for.
        """
        if not models:
            return {}
        rows: dict[str, list[JsonValue]] = {name: [] for name in models}
        warn_of_load(ctx.warn)
        ctx.directory.mkdir(parents=True, exist_ok=True)
        with Machines() as machines, TemporaryDirectory(dir=ctx.directory.resolve(), prefix="latency-") as name:
            cells = self._cells(models, ctx, Path(name), machines)
            plan = Plan(self.rounds, max(STARTUPS - self.rounds, 0) if self.effort else 0, self.concurrency)
            with ctx.progress("latency", sum(plan.processes(cell) for cell in cells)) as advance:
                for measured in plan.measure(cells, Path(name), advance, ctx.interrupted):
                    for model, row in rows_of(*measured).items():
                        rows[model].append(row)
        failures = {model: error for model in models if (error := failure(cells, model))}
        if failures and (len(models) == 1 or all(cell.failures.baseline for cell in cells)):
            raise next(iter(failures.values()))
        for text in dict.fromkeys(text for cell in cells for text in remarks(cell, failures)):
            ctx.warn(text)
        return {model: {"failure": str(failures[model])} if model in failures else rows[model] for model in models}

    def _cells(self, models: Mapping[str, Model], ctx: Context, folder: Path, machines: Machines) -> list[Cell]:
        """What to measure. Every model gets the inputs of the first, so that the work is equal."""
        cells = []
        method: Method = "early stopping" if self.effort else "interpolated"
        examination = Examination(ctx, folder, self.examples, max(self.batch))
        scores = Scores(ctx, folder, max(self.threads), max(self.batch), self.drop if self.score else None)
        preparation = Preparation(models, self.threads[0], examination, scores)
        for i, runtime in enumerate(self.runtimes):
            conversion = Conversion(runtime, machines.of(runtime.on), ctx, self.batch, *self._fed(models, ctx, runtime))
            prepared = preparation.of(conversion, folder / f"runtime-{i}")
            for threads, batch in product(self.threads, self.batch):
                specs = {member: {**spec[batch], "threads": threads} for member, spec in prepared.specs.items()}
                generate = next(iter(specs.values()), {}).get("generate")
                at = place(runtime, threads, batch) | ({"tokens": generate["tokens"]} if generate else {})
                failures = replace(prepared.failures, of={**prepared.failures.of})
                facts = prepared.agreements, prepared.scores, prepared.baseline, failures
                cells.append(Cell(at, specs, prepared.reason, *facts, runtime.required, method, runtime.label))
        return cells

    def _fed(self, models: Mapping[str, Model], ctx: Context, runtime: Runtime) -> tuple[Inputs, Spec]:
        """The inputs that all models are fed with, and what every process is told."""
        base: Spec = {"seconds": self.seconds, "iterations": self.iterations, "warmup": self.warmup}
        base |= {"fewest": EFFORTS[self.effort].fewest} if self.effort else {}
        if runtime.generates:
            base["generate"] = generation(models, ctx)
        return next(iter(models.values())).example, base


def place(runtime: Runtime, threads: int, batch: int) -> dict[str, JsonValue]:
    """Where and how a line is measured."""
    settings: dict[str, JsonValue] = {"settings": runtime.settings} if runtime.settings else {}
    host: dict[str, JsonValue] = {"host": runtime.on.name} if runtime.on else {}
    return {"runtime": runtime.name, "threads": threads, "batch": batch, **settings, **host}
