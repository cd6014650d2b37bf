"""summary.md: what GitHub and others show of a run or of a comparison."""

from pathlib import Path

from pipeline.base.formatting import bytes_text, interval_text, shown
from pipeline.records.comparison import ComparisonRecord, StrategyRecord
from pipeline.records.parts.chosen import Chosen
from pipeline.records.parts.gates import GateRecord
from pipeline.records.parts.models import ClassMeasure
from pipeline.records.record import Record
from pipeline.records.rows import chosen_text
from pipeline.report import columns, commands
from pipeline.report.markdown import block, capped, code, escaped, heading, items, paragraph, table
from pipeline.report.matrix import FIGURES, Matrix, of_comparison, of_run
from pipeline.report.parts.layers import MOST_LAYERS, kept_text, sensitivity, sensitivity_cells
from pipeline.report.parts.packing import COLUMNS, by_encoding, packing, packing_cells

WORST = 3
MARKS = {"pass": "✅", "fail": "❌", "inconclusive": "❔", "skipped": "⏭️"}


def summary(record: Record) -> str:
    """A run in Markdown: verdict, gates, stages, what was lost, warnings, where the model is, how to go on."""
    return capped(
        [
            *heading(_title(record), 2),
            *_headline(record),
            *_gates(record.gates),
            *_stages(record),
            *(paragraph(f"{text}.") if (text := columns.tokenizer_text(record)) else []),
            *_runtimes(of_run(record), record.chosen),
            *_sensitivity(record),
            *_packing(record),
            *_lost(record.final.classes if record.final else []),
            *items("Warnings", record.warnings),
            *items("Notes", record.notes),
            *_model(record),
            *_again(record),
        ]
    )


def comparison_summary(record: ComparisonRecord) -> str:
    """A comparison in Markdown: the choice, the table, what cannot be told apart, what failed, how to go on."""
    pairs = [f"{first} and {second} cannot be told apart" for first, second in record.indistinguishable]
    failures = [
        f"{strategy.name}, seed {seed}: {failure.message} (exit code {failure.exit_code})"
        for strategy in record.strategies
        for seed, failure in strategy.failures.items()
    ]
    explanation = (
        f"{record.test_samples:,} test and {record.validation_samples:,} validation examples. The front (●) and the "
        "choice (★) are made on validation; test is shown beside."
    )
    folder = shown(Path(record.folder))
    return capped(
        [
            *heading(f"★ {escaped(record.choice)}" if record.choice else "No strategy is chosen", 2),
            *paragraph(escaped(record.choice_reason)),
            *table(columns.STRATEGIES, map(_strategy, record.strategies), texts=(0, 10, 11)),
            *paragraph(explanation),
            *_runtimes(of_comparison(record), record.chosen),
            *items("Cannot be told apart", pairs),
            *items("Failures", failures),
            *items("Warnings", record.warnings),
            *items("Notes", record.notes),
            *paragraph(f"The whole comparison: {code(str(folder / 'report.html'))}"),
            *heading("Go on"),
            *block(commands.lines(commands.compare_again(record)), "sh"),
        ]
    )


def _title(record: Record) -> str:
    name = escaped(record.config.get("name", record.run))
    if record.failure:
        ended = "⏹️ {}: stopped in {}" if record.failure.is_stop else "❌ {}: failed in {}"
        return ended.format(name, escaped(record.failure.where or "the run"))
    if record.verdict is None:
        return f"{name}: no budget, no verdict"
    return f"{MARKS[record.verdict]} {name}: {record.verdict}"


def _headline(record: Record) -> list[str]:
    """Why it failed, and from what to what."""
    failure_block = block(record.failure.message[:4000]) if record.failure else []
    first, last = record.baseline, record.final
    if not first or not last or not record.stages:
        return failure_block
    parts = [f"**{bytes_text(first.size_bytes)} → {bytes_text(last.size_bytes)}**, ratio {last.compression_ratio:.1f}x"]
    if last.retention:
        parts.append(f"retention {interval_text(last.retention)} on {last.test_samples:,} test examples")
    if ratios := columns.latency_ratios(record):
        parts.append(f"latency ratio {interval_text(ratios[0][1], 2)}")
    return [*failure_block, *paragraph(", ".join(parts) + ".")]


def _gates(gates: list[GateRecord]) -> list[str]:
    if not gates:
        return []
    rows = [[escaped(gate.name), _verdict(gate), escaped(gate.message), escaped(gate.fix)] for gate in gates]
    return [*heading("Gates"), *table(["gate", "verdict", "found", "what to change"], rows, texts=range(4))]


def _verdict(gate: GateRecord) -> str:
    return f"{MARKS[gate.verdict]} {gate.verdict}{columns.counts_text(gate)}"


def _stages(record: Record) -> list[str]:
    rows = [[escaped(name), *_broken(columns.stage_cells(model))] for name, model in record.models]
    return [*heading("Stages"), *table(columns.STAGES[:-1], rows)] if rows else []


def _broken(cells: list[str]) -> list[str]:
    """Cells of several lines, as a table takes them."""
    return [cell.replace("\n", "<br>") for cell in cells]


def _runtimes(matrix: Matrix, chosen: Chosen | None) -> list[str]:
    """A row for each model in each runtime, and which one to take; nothing where there is no more than one runtime."""
    choice = [f"★ {escaped(chosen_text(chosen))}." if chosen.pair else f"{escaped(chosen.reason)}."] if chosen else []
    if len(matrix.places) < 2:
        return [piece for text in choice for piece in paragraph(text)]
    rows = []
    for name, place, spot in matrix.lines():
        skipped = [*["-"] * (len(FIGURES) - 1), f"skipped: {escaped(spot.skipped)}"]
        title = f"{escaped(place)}{' ★' if spot.chosen else ''}"
        rows.append([escaped(name), title, *(skipped if spot.skipped else spot.texts)])
    lines = table(["model", "runtime", *FIGURES], rows, texts=(0, 1, 7))
    return [
        *heading(f"Runtimes, {matrix.setting}" if matrix.setting else "Runtimes"),
        *(piece for text in choice for piece in paragraph(text)),
        *lines,
    ]


def _sensitivity(record: Record) -> list[str]:
    """How much the answers depend on each layer, the most first, and the widths that were chosen by it."""
    measured = sensitivity(record)
    lines = paragraph(kept_text(record)) if kept_text(record) else []
    if measured is None:
        return lines
    every = [sensitivity_cells(layer, measured.changes) for layer in measured.worst_first[:MOST_LAYERS]]
    rows = [[escaped(name), *cells] for name, *cells in every]
    columns = ["layer", "operator", "elements", *measured.changes]
    return [*heading("Sensitivity of layers"), *table(columns, rows, texts=(0, 1)), *lines]


def _packing(record: Record) -> list[str]:
    """The bytes of a packed file by encoding."""
    packed = packing(record)
    rows = [[escaped(name), *cells] for name, *cells in map(packing_cells, by_encoding(packed))] if packed else []
    return [*heading("Bytes by encoding"), *table(COLUMNS, rows)] if rows else []


def _lost(classes: list[ClassMeasure]) -> list[str]:
    """The classes that kept least, where any lost something."""
    lost = [(c, c.retention) for c in classes if c.retention and c.retention.value < 1]
    worst = sorted(lost, key=lambda pair: pair[1].value)[:WORST]
    flips = [f"{c.flips.lost:,}" if c.flips else "-" for c, _ in worst]
    rows = [
        [escaped(c.label), f"{c.support:,}", f"{c.score:.4f}", interval_text(retention), lost_text]
        for (c, retention), lost_text in zip(worst, flips, strict=True)
    ]
    titles = ["class", "examples", "score", "retention [95 %]", "lost"]
    return [*heading("What was lost, by class"), *table(titles, rows)] if rows else []


def _model(record: Record) -> list[str]:
    if not record.final:
        return []
    place = code(str(shown(Path(record.folder)) / record.final.file))
    early = " It is not the last of the chain." if record.failure else ""
    return [*heading("The model"), *paragraph(f"{place}, {bytes_text(record.final.size_bytes)}.{early}")]


def _again(record: Record) -> list[str]:
    """How to reproduce it, with a word where a commit alone does not, and how to go on."""
    again = commands.reproduce(record)
    dirty = "Files differed from their commit when it ran." if record.environment.get("git_dirty") else ""
    pieces = [*heading("Reproduce"), *(paragraph(dirty) if dirty else []), *block(commands.lines(again), "sh")]
    return [*(pieces if again else []), *heading("Go on"), *block(commands.lines(commands.go_on(record)), "sh")]


def _strategy(strategy: StrategyRecord) -> list[str]:
    marks = (" ★" if strategy.chosen else "") + (" ●" if strategy.on_front else "")
    return [
        escaped(strategy.name) + marks,
        *_broken(columns.strategy_cells(strategy)),
        f"{strategy.seconds:,.0f} s" if strategy.seconds is not None else "-",
        ", ".join(dict.fromkeys(verdict or "-" for verdict in strategy.verdicts)),
        escaped(strategy.claim or ""),
    ]
