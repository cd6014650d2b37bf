"""`shrink compare`: run all strategies, time them in turns, tell them apart; or compare runs that are there."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console

from pipeline.base.hardware import describe
from pipeline.base.signals import Interrupts
from pipeline.build.build import Built
from pipeline.build.config import Comparing
from pipeline.build.syntax.validate import validate
from pipeline.compare.assess import assess
from pipeline.compare.children import Ending, Order, run_all
from pipeline.compare.latency import contenders, time_all
from pipeline.compare.members import Member, comparing, digest, of_endings, of_runs, warnings_of_changes
from pipeline.compare.strategies import build_all, find_strategies
from pipeline.errors import ConfigError, Interruption, blame
from pipeline.gate.budget import Budget
from pipeline.gate.choice.choose import chosen_in
from pipeline.gate.choice.choosing import Choosing
from pipeline.gate.expected import load_expected
from pipeline.gate.judge import judge, judged
from pipeline.records.comparison import ComparisonRecord
from pipeline.records.journal import alone
from pipeline.records.record import Failure, Record
from pipeline.report.files import write_files
from pipeline.report.mlflow.comparison import track_comparison

LOG = logging.getLogger("shrinkline")

OTHER_RUNS = "the latencies are of different runs, each beside its own baseline: they were not taken in turns"


def compare(
    files: Sequence[str | Path],
    *,
    overrides: Sequence[str] = (),
    runs: str | Path = "runs",
    jobs: int = 1,
    track: bool = True,
    console: Console | None = None,
    allow_unsafe_load: bool = False,
) -> ComparisonRecord:
    """Run every strategy of the pipeline files and compare what came out; its folder has comparison.json and a report.

    Args:
        files: pipeline files, with `strategies:` or one chain each; `compare:` of the first one counts.
        overrides: applied to each file.
        runs: where run folders are made.
        jobs: strategies that run at a time. Benchmarks come afterwards, one at a time.
        track: log to MLflow.
        console: where progress is shown; standard error by default.
        allow_unsafe_load: unpickle weights that are more than tensors, where `model:` has their sha256.

    Raises:
        ConfigError: a strategy cannot work; nothing was run.
        Interruption: a stop was asked for; what was made is in the store.
    """
    strategies = find_strategies([Path(file) for file in files], overrides, allow_unsafe_load=allow_unsafe_load)
    built = dict(zip((s.name for s in strategies), build_all(strategies), strict=True))
    config, first = strategies[0].config, built[strategies[0].name]
    record = _start(strategies[0].source.path.stem, [str(file) for file in files], Path(runs), config.compare)
    record.overrides = [*overrides]
    _describe(record, first)
    folder = Path(record.folder)
    with alone(folder), Interrupts() as interrupts, _stopped(interrupts):
        orders = [Order(strategy, seed) for seed in record.seeds for strategy in strategies]
        endings = run_all(orders, folder.name, folder.parent, jobs, interrupts, _say)
        interrupts.check()
        endings = [_of_the_same_data(ending, first) for ending in endings]
        timed = time_all(contenders(endings, built), folder, interrupts, console or Console(stderr=True))
        record.warnings += timed.warnings
        members = [of_endings(strategy, endings, timed) for strategy in strategies]
        for member in members:
            for run in member.runs:
                _judge_again(run, built[member.name])
        _finish(record, members, config.compare, config.budget, config.choosing, track)
    return record


def _limit(budget: Budget) -> float | None:
    """The least retention of the baseline's score that the budget asks for."""
    return budget.retention.min if budget.retention and budget.retention.of == "baseline" else None


def compare_runs(
    folders: Sequence[str | Path], *, overrides: Sequence[str] = (), runs: str | Path = "runs", track: bool = True
) -> ComparisonRecord:
    """Compare runs that are there, without running anything; those of one strategy with other seeds stand together.

    Args:
        folders: run folders.
        overrides: of the keys of `compare:`, which is else that of the first run: "compare.axes=[size, macs]".
        runs: where the folder of the comparison is made.
        track: log to MLflow.

    Raises:
        ConfigError: one is no run folder or has not ended well, they are measured on different test data, or an
            override is of something else.
    """
    comparing({}, overrides)  # refused before anything is read
    members = of_runs([Path(folder) for folder in folders])
    records = [run for member in members for run in member.runs]
    settings = comparing(records[0].config.get("compare", {}), overrides)
    record = _start("runs", [str(folder) for folder in folders], Path(runs), settings)
    record.of_runs, record.overrides = True, [*overrides]
    record.data, record.environment = records[0].data, records[0].environment
    record.seeds = sorted({run.seed for run in records})
    in_turns = len({run.comparison for run in records}) == 1 and records[0].comparison
    if not in_turns and any(stage.latency for run in records for stage in run.stages):
        record.warnings.append(OTHER_RUNS)
    with blame(ConfigError, records[0].folder):
        budget: Budget = validate(Budget, records[0].config.get("budget", {}), None, ("budget",), Path())
        first = records[0].config.get("choose")
        chosen_by = validate(Choosing, first, None, ("choose",), Path()) if first else None
    with alone(Path(record.folder)):
        _finish(record, members, settings, budget, settings.choose or chosen_by, track)
    return record


@contextmanager
def _stopped(interrupts: Interrupts) -> Iterator[None]:
    """Tell a stop its exit code and how to go on."""
    try:
        yield
    except Interruption as error:
        error.exit_code, error.fix = interrupts.exit_code, "The same command takes what is stored already"
        raise


def _of_the_same_data(ending: Ending, first: Built) -> Ending:
    """The ending, a failure where its splits are others: the seed of a run must not draw them."""
    run = ending.record
    differ = [s for s in ("test", "validation") if run and run.data and digest(run, s) != first.data[s].digest]
    if ending.failure or not differ:
        return ending
    text = f"its {differ[0]} split is another than that of seed {first.config.seed}: draw it with a seed of its own"
    return replace(ending, failure=Failure(where=ending.order.title, message=text, exit_code=ConfigError.exit_code))


def _start(name: str, origins: list[str], runs: Path, settings: Comparing) -> ComparisonRecord:
    """Make the folder, and the record to fill."""
    now = datetime.now(UTC)
    title = f"{now:%Y%m%d-%H%M%S}-{name}-compared-{uuid4().hex[:4]}"
    folder = (runs / title).resolve()
    with blame(ConfigError, f"the folder for runs, {runs}", fix="Choose another"):
        folder.mkdir(parents=True)
    started, axes = now.isoformat(timespec="seconds"), [str(axis) for axis in settings.axes]
    record = ComparisonRecord(comparison=title, folder=str(folder), started=started, origins=origins, axes=axes)
    record.save()
    return record


def _describe(record: ComparisonRecord, first: Built) -> None:
    """Fill in on which data, where and with which seeds the strategies run, as the first one tells."""
    config = first.config
    record.data = {n: {"examples": len(first.task.splits[n]), "digest": s.digest} for n, s in first.data.items()}
    record.environment = describe(config.folder)
    record.seeds = list(range(config.seed, config.seed + config.compare.seeds))


def _finish(
    record: ComparisonRecord,
    members: Sequence[Member],
    settings: Comparing,
    budget: Budget,
    choosing: Choosing | None,
    track: bool,
) -> None:
    """Assess, and write everything that says so."""
    runs = {member.name: member.runs for member in members}
    every = [run for member_runs in runs.values() for run in member_runs]
    sizes: Any = record.data
    record.test_samples, record.validation_samples = (sizes[name]["examples"] for name in ("test", "validation"))
    record.test_uses = max((run.test_uses for run in every if run.test_uses is not None), default=None)
    failures = {member.name: member.failures for member in members}
    retention, pair = settings.retention or _limit(budget), (choosing, budget) if choosing else None
    assess(record, runs, failures, settings.least, retention, settings.claims, pair)
    for member in members:
        strategy = next(s for s in record.strategies if s.name == member.name)
        strategy.failed_runs = [os.path.relpath(run.folder, Path(record.folder).parent) for run in member.failed]
    record.warnings += warnings_of_changes(every)
    for seed in {run.seed for run in every}:
        if len({run.baseline.digest for run in every if run.seed == seed and run.baseline}) > 1:
            record.warnings.append(f"with seed {seed} the baselines differ: each retention is of its own baseline")
    record.ended = datetime.now(UTC).isoformat(timespec="seconds")
    record.save()
    write_files(record)
    if track:
        track_comparison(record)


def _judge_again(run: Record, built: Built) -> None:
    """The gates, now that there are latencies; the run folder tells the same."""
    budget = built.config.budget
    whole = judged(run, judge(budget, run, load_expected(budget, built.config.folder)))
    run.gates, run.verdict, run.warnings = whole.gates, whole.verdict, whole.warnings
    run.chosen = chosen_in(run, built.config.choosing, budget)
    run.save()
    write_files(run)


def _say(title: str, line: str) -> None:
    """A line of a run, without the time that this process adds itself."""
    LOG.info("%s: %s", title, re.sub(r"^\[\d\d:\d\d:\d\d\]\s*|^\s+", "", line))
