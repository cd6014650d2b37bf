"""summary.md: what GitHub and others show of a run or of a comparison."""

from pathlib import Path
from typing import Any

from pydantic import JsonValue

from pipeline.base.formatting import bytes_text, count_text, interval_text, shown
from pipeline.records.comparison import ComparisonRecord, StrategyRecord, Timing
from pipeline.records.record import ClassMeasure, Failure, GateRecord, ModelRecord, Record, Spread, StageRecord
from pipeline.report import commands
from pipeline.report.markdown import block, capped, code, escaped, heading, items, paragraph, table
from pipeline.report.terminal import model_cells, tokenizer_text

WORST = 3
STOPPED = (130, 143)
MARKS = {"pass": "✅", "fail": "❌", "inconclusive": "❔", "skipped": "⏭️"}
STAGES = ["stage", "size", "ratio", "params", "MACs", "score", "retention [95 %]", "latency ratio [95 %]"]
STRATEGIES = [
    *("strategy", "size", "ratio", "params", "MACs", "score", "retention [95 %], validation", "retention [95 %], test"),
    *("latency ratio [95 %]", "time", "verdict", "promised"),
]


def summary(record: Record) -> str:
    """A run in Markdown: verdict, gates, stages, what was lost, warnings, where the model is, how to go on."""
    return capped(
        [
            *heading(_title(record), 2),
            *_headline(record),
            *_gates(record.gates),
            *_stages(record),
            *(paragraph(f"{text}.") if (text := tokenizer_text(record)) else []),
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
        f"{strategy.name}, seed {seed}: {_ending(failure)}"
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
            *table(STRATEGIES, map(_strategy, record.strategies), texts=(0, 10, 11)),
            *paragraph(explanation),
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
        ended = "⏹️ {}: stopped in {}" if record.failure.exit_code in STOPPED else "❌ {}: failed in {}"
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
    if ratios := _ratios(_timed(record)):
        parts.append(f"latency ratio {ratios[0]}")
    return [*failure_block, *paragraph(", ".join(parts) + ".")]


def _gates(gates: list[GateRecord]) -> list[str]:
    if not gates:
        return []
    rows = [[escaped(gate.name), _verdict(gate), escaped(gate.message), escaped(gate.fix)] for gate in gates]
    return [*heading("Gates"), *table(["gate", "verdict", "found", "what to change"], rows, texts=range(4))]


def _verdict(gate: GateRecord) -> str:
    counts = f", counts as {gate.counts_as}" if gate.counts_as and gate.counts_as != gate.verdict else ""
    return f"{MARKS[gate.verdict]} {gate.verdict}{counts}"


def _stages(record: Record) -> list[str]:
    measured = [("baseline", record.baseline)] if record.baseline else []
    rows = [_figures(name, model) for name, model in (*measured, *((s.name, s) for s in record.stages))]
    return [*heading("Stages"), *table(STAGES, rows)] if rows else []


def _figures(name: str, model: ModelRecord) -> list[str]:
    return [
        escaped(name),
        *model_cells(model),
        "<br>".join(_ratios(model.latency if isinstance(model, StageRecord) else [])),
    ]


def _timed(record: Record) -> list[dict[str, JsonValue]]:
    """The latency rows of the last stage that has some."""
    return next((stage.latency for stage in reversed(record.stages) if stage.latency), [])


def _ratios(rows: list[dict[str, Any]]) -> list[str]:
    return [interval_text(row["ratio"], 2) for row in rows if isinstance(row.get("ratio"), dict)]


def _lost(classes: list[ClassMeasure]) -> list[str]:
    """The classes that kept least, where any lost something."""
    lost = [(c, c.retention) for c in classes if c.retention and c.retention.value < 1]
    worst = sorted(lost, key=lambda pair: pair[1].value)[:WORST]
    rows = [
        [
            escaped(c.label),
            f"{c.support:,}",
            f"{c.score:.4f}",
            interval_text(retention),
            f"{c.flips.lost:,}" if c.flips else "-",
        ]
        for c, retention in worst
    ]
    columns = ["class", "examples", "score", "retention [95 %]", "lost"]
    return [*heading("What was lost, by class"), *table(columns, rows)] if rows else []


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
        *_sizes(strategy),
        _spread(strategy.score),
        interval_text(strategy.validation_retention),
        interval_text(strategy.retention),
        "<br>".join(map(_timing, strategy.latency)) or "-",
        f"{strategy.seconds:,.0f} s" if strategy.seconds is not None else "-",
        ", ".join(dict.fromkeys(verdict or "-" for verdict in strategy.verdicts)),
        escaped(strategy.claim or ""),
    ]


def _sizes(strategy: StrategyRecord) -> list[str]:
    """Size, ratio, params and MACs, with a dash for what was not measured."""
    ratio = "-" if strategy.compression_ratio is None else f"{strategy.compression_ratio:.1f}x"
    texts = ((strategy.size_bytes, bytes_text), (strategy.params, count_text), (strategy.macs, count_text))
    size, params, macs = ("-" if value is None else text(value) for value, text in texts)
    return [size, ratio, params, macs]


def _spread(scores: Spread | None) -> str:
    if scores is None:
        return "-"
    return f"{scores.mean:.4f}" + (f" ± {scores.deviation:.4f}" if scores.deviation is not None else "")


def _timing(timing: Timing) -> str:
    return interval_text(timing.model_dump(), 2)


def _ending(failure: Failure) -> str:
    return f"{failure.message} (exit code {failure.exit_code})"
