"""`shrink gate` and `shrink expect`: judge a run again, or a pipeline file; write expected.json."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import AsJson, Strategy
from pipeline.errors import ConfigError, ShrinkError, blame

if TYPE_CHECKING:
    from pipeline.gate.budget import Budget
    from pipeline.gate.choice.choosing import Choosing
    from pipeline.records.record import Record

LOG = logging.getLogger("shrinkline")

EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 5}
NO_RUN = "a run folder with a record.json, or a pipeline file"

RUNS = Path("runs")

BudgetFile = Annotated[
    Path | None, typer.Option("--budget", help="A YAML with the keys of `budget:`, in place of the run's own.")
]


def gate(
    target: Annotated[Path, typer.Argument(metavar="RUN|CONFIG", help="A run folder, or a pipeline file to run.")],
    budget: BudgetFile = None,
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Of a pipeline file, as `run` takes it.")
    ] = [],  # noqa: B006  # typer reads it and does not keep it
    strategy: Strategy = None,
    runs: Annotated[Path, typer.Option(help="Where a pipeline file's run folders are made.")] = RUNS,
    as_json: AsJson = False,
) -> int:
    """Judge a run by its budget; of a pipeline file, run first what is not stored. The user's code is not needed.

    Exit codes: 0 the budget is kept, 1 it is not, 5 too little is known to tell, 2 config; that of the run where it
    failed.
    """
    if target.is_dir() and (overrides or strategy or runs != RUNS):
        raise typer.BadParameter("--set, --strategy and --runs are for a pipeline file: of a run nothing is run")
    if target.is_dir():
        record = judge_run(target, budget)
    else:
        with data_even_of_a_failure(as_json):
            record = _run(target, budget, overrides, strategy, runs)
    if as_json:
        print(record.model_dump_json(indent=2))  # noqa: T201
    else:
        for line in lines(record):
            print(line)  # noqa: T201
    return record.failure.exit_code if record.failure else EXIT_CODES[record.verdict or "inconclusive"]


def expect(
    run: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(help="Where to; by default where the run's budget looks for it.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Write expected.json, to be committed: what limits that are told `of: expected` hold later models to."""
    from pipeline.gate import expected
    from pipeline.records.folder import load_run

    record = load_run(run, expected=NO_RUN)
    expected_figures = expected.of_run(record)
    path = expected.write(expected_figures, output or _committed(record))
    print(expected.text(expected_figures).rstrip() if as_json else path)  # noqa: T201
    return 0


@contextmanager
def data_even_of_a_failure(as_json: bool) -> Iterator[None]:
    """Print the record of a run that failed, where JSON is asked for."""
    from pipeline.records.record import Record

    try:
        yield
    except ShrinkError as error:
        if as_json and error.run:
            print(Record.load(error.run).model_dump_json(indent=2))  # noqa: T201
        raise


def judge_run(folder: Path, budget_file: Path | None = None) -> "Record":
    """The record of a run with its gates judged again, as it is then in its folder, with the files made of it.

    Where the folder cannot be written that is a warning, and it stays as it was.

    Raises:
        ConfigError: this is no run, it has not ended, or there is nothing to judge it by.
    """
    from pipeline.gate.choice.choose import chosen_in
    from pipeline.gate.expected import load_expected
    from pipeline.gate.judge import judge, judged
    from pipeline.records.folder import load_run
    from pipeline.report.files import write_files

    before = load_run(folder, expected=NO_RUN)
    budget = load_budget(budget_file) if budget_file else own_budget(before)
    _check_limits(budget, str(budget_file or folder))
    try:
        expected = load_expected(budget, budget_file.parent if budget_file else code_folder(before))
    except ConfigError as error:
        if budget_file:  # which looks for it beside itself
            place = budget_file.parent / budget.expected
            error.fix = f"Write it with `shrink expect {folder} --output {place}` and commit it"
        raise
    chosen = chosen_in(before, own_choosing(before), budget) if before.chosen else None  # under the verdict's limits
    record = judged(before.model_copy(update={"chosen": chosen}), judge(budget, before, expected))
    record.judged_by = budget.model_dump(mode="json", exclude_none=True) if budget_file else None
    try:
        record.save()
    except OSError as error:  # such as a folder that may only be read; the verdict is told all the same
        LOG.warning("the verdict is not kept in %s: %s", folder, error.strerror)
        return record
    with redirect_stdout(sys.stderr):
        write_files(record)
    if any(getattr(record, name) != getattr(before, name) for name in ("gates", "verdict", "chosen")):
        _leave_to_sync(folder)
    return record


def _leave_to_sync(folder: Path) -> None:
    """Where MLflow has a run as it was judged before, have `shrink sync` log it again."""
    from pipeline.report.mlflow.run import is_synced, keep_state

    if is_synced(folder):
        keep_state(folder, synced=False)
        LOG.warning("MLflow has the verdict of before; to log this one: shrink sync %s", folder)


def lines(record: "Record") -> list[str]:
    """One line a gate, and the verdict."""
    from pipeline.report.terminal import gate_text

    failed = [f"failed: {record.failure.message}"] if record.failure else []
    return [*failed, *map(gate_text, record.gates), f"verdict: {record.verdict}"]


def own_budget(record: "Record") -> "Budget":
    """The budget of a run's pipeline file. Raises ConfigError where the record's is damaged."""
    from pipeline.gate.budget import Budget

    with blame(ConfigError, record.folder, fix="Give one with --budget"):
        return Budget.model_validate(record.config.get("budget", {}))


def own_choosing(record: "Record") -> "Choosing | None":
    """How a run's pipeline file has a runtime chosen. Raises ConfigError where the record's is damaged."""
    from pipeline.gate.choice.choosing import Choosing

    compared = record.config.get("compare")
    places = [compared.get("choose") if isinstance(compared, dict) else None, record.config.get("choose")]
    with blame(ConfigError, record.folder):
        return next((Choosing.model_validate(one) for one in places if one is not None), None)


def load_budget(path: Path) -> "Budget":
    """The budget in a YAML of its own. Raises ConfigError with the line that does not fit."""
    from pipeline.build.source import Source
    from pipeline.build.syntax.validate import validate
    from pipeline.gate.budget import Budget

    source = Source(path)
    budget: Budget = validate(Budget, source.data, source, (), path.parent)
    return budget


def code_folder(record: "Record") -> Path:
    """The folder of a run's pipeline file, where it is known, else the current one."""
    return Path(record.origin.folder) if record.origin else Path()


def _committed(record: "Record") -> Path:
    """Where the budget of a run looks for expected.json: below its pipeline file, which is there.

    A record may come from anywhere, and is not to choose what is written on this machine.
    """
    folder = code_folder(record)
    fix = "Say where to with --output"
    with blame(ConfigError, record.folder, fix=fix):
        path = folder / own_budget(record).expected
        if record.origin and not (folder / Path(record.origin.file).name).is_file():
            raise ConfigError(f"its pipeline file is not in {folder}", fix=fix)
        if path.suffix != ".json" or not path.resolve().is_relative_to(folder.resolve()):
            expected = "a .json below the folder of the pipeline file"
            raise ConfigError(f"`expected` is {path}", expected=expected, fix=fix)
    return path


def _run(
    config: Path, budget_file: Path | None, overrides: Sequence[str], strategy: str | None, runs: Path
) -> "Record":
    """The record of a pipeline file that was run; with another budget as if that stood in it."""
    from pipeline.build.source import load_config

    all_overrides = [*overrides]
    if budget_file:
        budget = load_budget(budget_file)
        beside = budget.model_copy(update={"expected": (budget_file.parent / budget.expected).resolve()})
        all_overrides.append(f"budget={beside.model_dump_json(exclude_none=True)}")
    loaded, _ = load_config(config, all_overrides, strategy)
    _check_limits(loaded.budget, str(budget_file or config))
    from pipeline import runner  # torch takes its time

    with redirect_stdout(sys.stderr):  # a user's file may print; standard output is data
        return runner.run(config, overrides=all_overrides, strategy=strategy, runs=runs)


def _check_limits(budget: "Budget", where: str) -> None:
    """Refuse a budget that would pass everything."""
    from pipeline.gate.judge import has_limits

    if not has_limits(budget):
        fix = "Add `budget:` to the pipeline file, such as {retention: {min: 0.95}}, or give one with --budget"
        raise ConfigError("there is no limit to judge by", where=where, fix=fix)
