"""What a terminal shows at the end of a run and of a comparison: the table, and lines under it."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from shlex import quote

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pipeline.base.formatting import interval_text, shown
from pipeline.records.comparison import BASELINE, ComparisonRecord, StrategyRecord
from pipeline.records.parts.chosen import Chosen
from pipeline.records.parts.gates import GateRecord
from pipeline.records.record import Record
from pipeline.records.rows import chosen_text
from pipeline.report import columns
from pipeline.report.matrix import FIGURES, Matrix, of_comparison, of_run
from pipeline.report.mlflow.address import HIDDEN, URI, address
from pipeline.report.mlflow.pages import LOCAL, link
from pipeline.report.parts.layers import MOST_LAYERS, bisection_text, kept_text, sensitivity, sensitivity_cells
from pipeline.report.parts.packing import packing_text

WIDE = 126  # characters of a table with one line a row and names such as benchmark.latency
VERDICTS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "skipped": "yellow"}


def show(record: Record, console: Console) -> None:
    """Print a run: the table, the notes, the warnings, the verdict, and where everything is."""
    from pipeline.report.mlflow.run import STATE, is_synced  # `shrink gate`, which says less, does without torch

    matrix = runtimes_table(of_run(record), console.width)
    tables = table(record, console.width), metrics_table(record, console.width), matrix, sensitivity_table(record)
    console.print(*(part for part in tables if part))
    notes = [Text(note) for note in (*_texts(record), *record.notes) if note]
    notes += _warnings(record.warnings)
    notes += [Text(gate_text(gate), style=VERDICTS[gate.verdict]) for gate in record.gates]
    notes += _chosen(record.chosen)
    console.print(Group(*notes))
    folder = shown(Path(record.folder))
    # A run without tracking misses nothing.
    if (Path(record.folder) / STATE).exists() and not is_synced(Path(record.folder)):
        console.print(*_warnings([f"MLflow does not have this run whole; later: shrink sync {folder}"]))
    places = [f"model: {shown(Path(record.folder) / record.final.file)}"] if record.final else []
    # Left to the terminal to wrap, so that a path can be copied whole.
    places += [f"run: {folder}", *_mlflow(Path(record.folder))]
    console.print(Text("\n".join(places)), soft_wrap=True)


def _texts(record: Record) -> list[str]:
    return [columns.tokenizer_text(record), kept_text(record), bisection_text(record), packing_text(record)]


def sensitivity_table(record: Record) -> Table | None:
    """A row a layer, those first on which the answers depend most; None where that was not measured."""
    measured = sensitivity(record)
    if measured is None:
        return None
    title = "how far the answers move where one layer alone has fewer bits or channels"
    layer_table = Table(title=title, padding=(0, 1))
    _add_columns(layer_table, ["layer", "operator"], ["elements", *measured.changes])
    for layer in measured.worst_first[:MOST_LAYERS]:
        layer_table.add_row(*sensitivity_cells(layer, measured.changes))
    if len(measured.layers) > MOST_LAYERS:
        layer_table.caption = f"the first {MOST_LAYERS} of {len(measured.layers)}; the report and the record have all"
    return layer_table


def show_comparison(record: ComparisonRecord, console: Console) -> None:
    """Print a comparison: the table, the choice, what cannot be told apart, warnings, and where everything is."""
    choice = (f"choice: {record.choice}, " if record.choice else "no choice: ") + record.choice_reason
    failures = [
        Text(f"failed: {strategy.name}, seed {seed}: {failure.message}", style="bold red")
        for strategy in record.strategies
        for seed, failure in strategy.failures.items()
    ]
    lines = [Text(choice, style="bold green" if record.choice else "yellow"), *map(Text, _differences(record))]
    lines += [line for strategy in record.strategies for line in _judged(strategy)]
    lines += _chosen(record.chosen)
    matrix = runtimes_table(of_comparison(record), console.width)
    tables = [comparison_table(record), *([matrix] if matrix else [])]
    console.print(*tables, *lines, *_warnings(record.warnings), *failures, sep="\n")
    folder = shown(Path(record.folder))
    # Left to the terminal to wrap, so that a path can be copied whole.
    places = [f"comparison: {folder}", f"report: {folder / 'report.html'}", *_mlflow(Path(record.folder))]
    console.print(Text("\n".join(places)), soft_wrap=True)


def gate_text(gate: GateRecord) -> str:
    """A gate in a line: the verdict, what it counts as where that is another, what was found, what to change next."""
    return f"{gate.verdict}{columns.counts_text(gate)}: {gate.message}" + (f". {gate.fix}." if gate.fix else "")


def table(record: Record, width: int = WIDE) -> Table:
    """A row a stage: size, ratio, params, MACs, score, retention with its interval, latency ratio, time.

    Below `WIDE` columns two lines a row, so that at 80 no figure is cut off.
    """
    title = f"{record.run}, {record.baseline.test_samples if record.baseline else 0} test examples"
    stage_table = Table(title=title, padding=(0, 1 if width >= WIDE else 0), show_lines=width < WIDE)
    _add_columns(stage_table, ["stage"], _lines(columns.STAGES[1:], width))
    for name, model in record.models:
        cells = [*columns.stage_cells(model), f"{model.seconds:.1f} s"]
        stage_table.add_row(name, *_lines(cells, width), end_section=model is record.baseline)
    return stage_table


def metrics_table(record: Record, width: int = WIDE) -> Table | None:
    """A row a stage and metric over the whole test split, beside the baseline's; None where there are no metrics."""
    if not any(model.metrics for _, model in record.models):
        return None
    metric_table = Table(title="metrics over all test examples", padding=(0, 1 if width >= WIDE else 0))
    titles = ["value [95 %]", "baseline minus it [95 %]", "share of baseline's [95 %]"]
    _add_columns(metric_table, ["stage", "metric"], _wrapped(titles, width))
    for stage, model in record.models:
        for name, value in model.metrics.items():
            estimates = value, model.metrics_drop.get(name), model.metrics_retention.get(name)
            metric_table.add_row(stage, name, *_wrapped(map(interval_text, estimates), width))
    return metric_table


def comparison_table(record: ComparisonRecord) -> Table:
    """A row a strategy, two lines each; `front` marks what no other is better than in all of the axes."""
    several = f", {len(record.seeds)} seeds" if len(record.seeds) > 1 else ""
    title = f"{record.comparison}, {record.test_samples} test examples{several}"
    strategy_table = Table(title=Text(title), caption=_caption(record), padding=(0, 1))
    titles = [title.replace(", ", "\n").replace("ratio [", "ratio\n[") for title in columns.STRATEGIES[1:10]]
    _add_columns(strategy_table, ["strategy"], titles)
    claims = any(strategy.claim for strategy in record.strategies)
    if claims:
        _add_columns(strategy_table, ["promised"])
    for strategy in record.strategies:
        claim = [Text(strategy.claim or "")] if claims else []
        strategy_table.add_row(
            _title(strategy), *_strategy_cells(strategy), *claim, end_section=strategy.name == BASELINE
        )
    return strategy_table


def runtimes_table(matrix: Matrix, width: int = WIDE) -> Table | None:
    """A row for each model in each runtime; None where there is no more than one. Below `WIDE` two lines a row."""
    if len(matrix.places) < 2:
        return None
    is_wide = width >= WIDE
    setting = f", {matrix.setting}" if matrix.setting else ""
    runtime_table = Table(title=f"runtimes{setting}", padding=(0, 1), show_lines=not is_wide)
    names, titles = ["model", "runtime"], list(FIGURES)
    _add_columns(runtime_table, names if is_wide else ["\n".join(names)], titles if is_wide else _paired(titles))
    for name, place, spot in matrix.lines():
        texts = list(spot.texts) or [*["-"] * (len(FIGURES) - 1), "skipped"]
        where = f"{place}, chosen" if spot.chosen else place
        title = [name, where] if is_wide else [f"{name}\n{where}"]
        style = "green" if spot.chosen else "yellow" if spot.skipped else ""
        runtime_table.add_row(*map(Text, [*title, *(texts if is_wide else _paired(texts))]), style=style)
    return runtime_table


def _paired(figures: Sequence[str]) -> list[str]:
    """Size over memory, start-up over the median, score over what is said of it."""
    size, startup, median, memory, score, answers = figures
    return [f"{size}\n{memory}", f"{startup}\n{median}", f"{score}\n{answers}"]


def _add_columns(rich_table: Table, names: Sequence[str], figures: Sequence[str] = ()) -> None:
    """Add columns of names, which may be broken anywhere, and of figures, which may not."""
    for name in names:
        rich_table.add_column(name, overflow="fold")
    for figure in figures:
        rich_table.add_column(figure, justify="right", no_wrap=True)


def _lines(cells: Sequence[str], width: int) -> list[str]:
    """The cells of a row; on a narrow terminal ratio under size, MACs under params, and intervals under their value."""
    if width >= WIDE:
        return list(cells)
    size, ratio, params, macs, *rest = cells
    return [f"{size}\n{ratio}", f"{params}\n{macs}", *_wrapped(rest, width)]


def _wrapped(cells: Iterable[str], width: int = 0) -> list[str]:
    """The cells; on a narrow terminal with intervals under their value."""
    return [cell if width >= WIDE else cell.replace(" [", "\n[") for cell in cells]


def _strategy_cells(strategy: StrategyRecord) -> list[str]:
    """The cells of a strategy with the time; the baseline's shares of itself are 1."""
    cells = [cell.replace(" ± ", "\n+- ") for cell in columns.strategy_cells(strategy)]
    if strategy.name == BASELINE:
        cells[len(columns.FIGURES) :] = "111"
    return [*_wrapped(cells), "-" if strategy.seconds is None else f"{strategy.seconds:.1f} s"]


def _title(strategy: StrategyRecord) -> Text:
    marks = [mark for mark, true in (("front", strategy.on_front), ("chosen", strategy.chosen)) if true]
    marks += ["failed"] if strategy.failures else []
    style = "green" if strategy.chosen else "dim"
    return Text.assemble(strategy.name, (f"\n{', '.join(marks)}", style) if marks else "")


def _judged(strategy: StrategyRecord) -> list[Text]:
    """The verdict of a strategy, and its limits but for those that are kept; nothing where there is no budget."""
    verdicts = [verdict for verdict in strategy.verdicts if verdict]
    if not verdicts:
        return []
    worst = min(verdicts, key=("fail", "inconclusive", "pass").index)
    reasons = "; ".join(gate.message for gate in strategy.gates if gate.verdict != "pass")
    return [Text(f"{strategy.name}: {worst}" + (f", {reasons}" if reasons else ""), style=VERDICTS[worst])]


def _caption(record: ComparisonRecord) -> str:
    uses = f"; this test split was used for {record.test_uses} models" if record.test_uses else ""
    return f"front of {', '.join(record.axes)}; it and the choice are made on validation, test stands beside{uses}"


def _differences(record: ComparisonRecord) -> list[str]:
    """Which strategies differ, one line each, and in one line the pairs that cannot be told apart."""
    alike = [f"{first} | {second}" for first, second in record.indistinguishable]
    open_ = f"cannot be told apart on {record.test_samples:,} test examples, which does not say that they are equal: "
    notes = [note for note in record.notes if "cannot be told apart" not in note]
    return notes + ([open_ + "; ".join(alike)] if alike else [])


def _chosen(chosen: Chosen | None) -> list[Text]:
    """Which runtime, or pair, to take."""
    if chosen is None:
        return []
    style = "bold green" if chosen.pair else "yellow"
    return [Text(f"{'chosen' if chosen.pair else 'nothing chosen'}: {chosen_text(chosen)}", style=style)]


def _warnings(warnings: Iterable[str]) -> list[Text]:
    return [Text(f"warning: {warning}", style="yellow") for warning in warnings]


def _mlflow(folder: Path) -> list[str]:
    """How to look at it in MLflow, where it is tracked: what to start, unless there is a server, and what to open."""
    from pipeline.report.mlflow.run import STATE, experiment_of

    if not (folder / STATE).exists():
        return []
    place, experiment = address(folder.parent), experiment_of(folder)
    if place.startswith(("http://", "https://")):
        server = place.replace(f"{HIDDEN}@", "")  # who opens it is asked for what lets one in
        return [f"MLflow: {link(server, experiment) if experiment else server}"]
    if HIDDEN in place or place.startswith("databricks"):  # what is shown of it starts nothing
        return [f"MLflow: {place}"]
    is_ours = folder.parent == Path.cwd() / "runs" and Path("Makefile").exists() and not os.environ.get(URI)
    start = "make ui" if is_ours else f"mlflow ui --backend-store-uri {quote(place)}"
    return [f"MLflow: {start}{f', then open {link(LOCAL, experiment)}' if experiment else ''}"]
