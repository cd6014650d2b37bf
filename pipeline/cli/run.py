"""The commands that run chains or look at them before: run, resume, compare, sync, plan, stages, schema."""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.base.quiet import uncollected
from pipeline.build.syntax.carried import STRATEGIES, located
from pipeline.cli import options
from pipeline.cli.gate import EXIT_CODES, data_even_of_a_failure
from pipeline.errors import ConfigError, ShrinkError, TrackingError


@uncollected()
def run(
    config: options.Config,
    overrides: options.Overrides = [],  # noqa: B006  # typer reads it and does not keep it
    limit: options.Limit = None,
    strategy: options.Strategy = None,
    runs: options.Runs = Path("runs"),
    register: Annotated[str | None, typer.Option(help="Register the last model in MLflow under this name.")] = None,
    require_tracking: options.RequireTracking = False,
    lock_timeout: options.LockTimeout = None,
    processes: options.Processes = None,
    in_comparison: Annotated[str | None, typer.Option(hidden=True)] = None,
    allow_unsafe_load: options.Unsafe = False,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Run a chain and judge it; what was computed before is taken from the store.

    Exit codes: 0 done, 1 the budget failed, 2 config, 3 a stage failed, 4 disk or memory ran out, 5 inconclusive,
    6 an ONNX file from outside crashed the process that ran it, 7 tracking required and down, 75 a lock timed out,
    130 and 143 interrupted.
    """
    from pipeline.build.source import load_config
    from pipeline.build.syntax.declared import check_declared

    config, overrides = located(config), with_limit(overrides, limit)
    check_declared(*load_config(config, overrides, strategy))  # what is wrong in the file is told before torch is there
    from pipeline.report.mlflow.following import following

    alone = in_comparison is None  # a comparison times all models in turns, and logs when everything is there
    with following(alone) as open_tracking, data_even_of_a_failure(as_json), redirect_stdout(sys.stderr):
        from pipeline import runner  # MLflow and torch take their time at once

        record = runner.run(
            config,
            overrides=overrides,
            strategy=strategy,
            runs=runs,
            register=register,
            comparison=in_comparison,
            track=alone,
            open_tracking=open_tracking,
            benchmarks=alone,
            require_tracking=require_tracking,
            lock_timeout=lock_timeout,
            processes=processes,
            allow_unsafe_load=allow_unsafe_load,
        )
    return end(record, as_json)


def compare(
    paths: Annotated[list[Path], typer.Argument(help="Pipeline files; with --runs run folders.", show_default=False)],
    of_runs: Annotated[bool, typer.Option("--runs", help="Compare runs that are there; runs nothing.")] = False,
    overrides: options.Overrides = [],  # noqa: B006
    limit: options.Limit = None,
    jobs: Annotated[int, typer.Option(min=1, help="Strategies that run at a time; benchmarks come afterwards.")] = 1,
    into: options.Runs = Path("runs"),
    allow_unsafe_load: options.Unsafe = False,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Run all strategies of one file or several, time them in turns, and say which differ and which to choose.

    Exit codes: 0 all ran, 2 config, 130 and 143 interrupted, else that of the first strategy that failed; the others
    are run and compared all the same.
    """
    if of_runs and (limit or jobs > 1):
        raise options.UsageError("--limit and --jobs are for pipeline files: with --runs nothing is run")
    overrides = with_limit(overrides, limit)
    if not of_runs:
        from pipeline.build.source import load_all
        from pipeline.build.syntax.declared import check_declared

        paths = [located(path, STRATEGIES) for path in paths]
        for path in paths:
            for loaded in load_all(path, overrides).values():
                check_declared(*loaded)
    from pipeline.compare import compare as comparing
    from pipeline.report.terminal import show_comparison

    with redirect_stdout(sys.stderr):
        if of_runs:
            record = comparing.compare_runs(paths, overrides=overrides, runs=into)
        else:
            record = comparing.compare(
                paths, overrides=overrides, runs=into, jobs=jobs, allow_unsafe_load=allow_unsafe_load
            )
    _print(record, as_json, show_comparison)
    return next((f.exit_code for s in record.strategies for f in s.failures.values()), 0)


def resume(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    require_tracking: options.RequireTracking = False,
    lock_timeout: options.LockTimeout = None,
    processes: options.Processes = None,
    allow_unsafe_load: options.Unsafe = False,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Go on with a run that was stopped or killed, in its folder, with as many processes. Exit codes as `run`."""
    from pipeline.report.mlflow.following import following

    with following() as open_tracking, data_even_of_a_failure(as_json), redirect_stdout(sys.stderr):
        from pipeline import runner

        record = runner.resume(
            run,
            open_tracking=open_tracking,
            require_tracking=require_tracking,
            lock_timeout=lock_timeout,
            processes=processes,
            allow_unsafe_load=allow_unsafe_load,
        )
    return end(record, as_json)


def sync(
    run: Annotated[list[Path] | None, typer.Argument(help="Run folders; all below --runs by default.")] = None,
    runs: Annotated[Path, typer.Option(help="Where run folders are.")] = Path("runs"),
    debug: options.Debug = False,
) -> int:
    """Log to MLflow what it missed while it was down; what it has already is not logged again.

    Exit codes: 0 all is logged; else that of the first folder that is not, 2 or 7, once the others are.
    """
    from pipeline.report.mlflow.connection import UnreachableError
    from pipeline.runner import sync_run

    kinds, failures = ("record.json", "comparison.json"), list[ShrinkError]()
    folders = run or sorted(file.parent for kind in kinds for file in runs.glob(f"*/{kind}"))
    for folder in folders:
        try:
            with redirect_stdout(sys.stderr):
                outcome = "logged" if sync_run(folder) else "nothing to do"
        except UnreachableError:  # nor would it be for the others
            raise
        except (ConfigError, TrackingError) as error:
            failures.append(error)
            outcome = f"not logged: {error}"
        print(f"{folder.name}: {outcome}")  # noqa: T201
    if failures:
        print(f"{len(failures)} of {len(folders)} are not logged", file=sys.stderr)  # noqa: T201
    return failures[0].exit_code if failures else 0


def with_limit(overrides: list[str], limit: int | None) -> list[str]:
    """The overrides with the limit among them, which a `--set limit=` still changes."""
    return overrides if limit is None else [f"limit={limit}", *overrides]


def _print(record: Any, as_json: bool, show: Callable[..., None]) -> None:
    """Print a record as JSON, or show it as wide as the terminal, elsewhere wide enough for the table."""
    from rich.console import Console

    if as_json:
        print(record.model_dump_json(indent=2))  # noqa: T201
    else:
        show(record, Console(width=None if sys.stdout.isatty() else 160))


def end(record: Any, as_json: bool) -> int:
    """Print a run and give its exit code."""
    from pipeline.report.terminal import show

    _print(record, as_json, show)
    return EXIT_CODES[record.verdict or "pass"]


@uncollected()
def plan(
    config: options.Config,
    overrides: options.Overrides = [],  # noqa: B006
    limit: options.Limit = None,
    strategy: options.Strategy = None,
    runs: Annotated[Path, typer.Option(help="Where run folders and the store are.")] = Path("runs"),
    explain: Annotated[bool, typer.Option("--explain", help="Say why a stage would run again.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Show all settings, defaults too.")] = False,
    allow_unsafe_load: options.Unsafe = False,
    as_json: options.AsJson = False,
    debug: options.Debug = False,
) -> int:
    """Show what would run, what is stored already, and what looks suspicious; nothing is trained."""
    from pipeline.build.source import load_config
    from pipeline.build.syntax.declared import check_declared

    config, overrides = located(config), with_limit(overrides, limit)
    check_declared(*load_config(config, overrides, strategy))
    from rich.console import Console

    from pipeline import runner  # from here on torch takes its time
    from pipeline.run.plan import as_json as plan_json
    from pipeline.run.plan import show

    options: Any = {"overrides": overrides, "strategy": strategy, "runs": runs, "allow_unsafe_load": allow_unsafe_load}
    with ExitStack() as stack:
        with redirect_stdout(sys.stderr):
            built, store = stack.enter_context(runner.planned(config, **options))
        if as_json:
            print(json.dumps(plan_json(built, store), indent=2))  # noqa: T201
        else:
            show(built, store, Console(), explain=explain, full=full)
    return 0


def stages(
    names: Annotated[
        list[str], typer.Argument(metavar="[NAME]...", help="Stages such as distill.logits, or families.")
    ] = [],  # noqa: B006
    full: Annotated[bool, typer.Option("--full", help="Show all settings of all of them.")] = False,
    as_json: options.AsJson = False,
) -> int:
    """List the built-in stages; of those that are named, the settings with their defaults."""
    from rich.console import Console

    from pipeline.cli.catalogue import describe, show, show_names

    entries = describe(names)
    if as_json:
        print(json.dumps(entries, indent=2))  # noqa: T201
    elif names or full:
        show(entries, Console(), full=full)
    else:
        show_names(entries, Console())
    return 0


def schema(
    record: Annotated[bool, typer.Option("--record", help="Of record.json instead of the pipeline file.")] = False,
    comparison: Annotated[bool, typer.Option("--comparison", help="Of comparison.json instead.")] = False,
) -> int:
    """Print the JSON Schema of a pipeline file, for editors; or of record.json or comparison.json."""
    from pipeline.cli.catalogue import pipeline_schema
    from pipeline.records.comparison import ComparisonRecord
    from pipeline.records.record import Record

    model = Record if record else ComparisonRecord if comparison else None
    print(json.dumps(model.model_json_schema() if model else pipeline_schema(), indent=2))  # noqa: T201
    return 0
