"""The table of a comparison on the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.base.formatting import bytes_text, count_text, interval_text, shown
from pipeline.records.comparison import BASELINE, ComparisonRecord, StrategyRecord
from pipeline.records.record import Spread

COLUMNS = [
    "size",
    "ratio",
    "params",
    "MACs",
    "score",
    "retention [95 %]\nvalidation",
    "retention [95 %]\ntest",
    "latency ratio\n[95 %]",
    "time",
]


def show(record: ComparisonRecord, console: Console) -> None:
    """Print a comparison: the table, the choice, what cannot be told apart, warnings, and where everything is."""
    console.print(table(record))
    chosen = (
        f"choice: {record.choice}, {record.choice_reason}" if record.choice else f"no choice: {record.choice_reason}"
    )
    lines = [Text(chosen, style="bold green" if record.choice else "yellow")]
    lines += [Text(line) for line in differences(record)]
    lines += [Text(f"warning: {warning}", style="yellow") for warning in record.warnings]
    for strategy in record.strategies:
        for seed, failure in strategy.failures.items():
            lines.append(Text(f"failed: {strategy.name}, seed {seed}: {failure.message}", style="bold red"))
    for line in lines:
        console.print(line)
    folder = shown(Path(record.folder))
    # Left to the terminal to wrap, so that a path can be copied whole.
    console.print(Text(f"comparison: {folder}\nreport: {folder / 'report.html'}"), soft_wrap=True)


def differences(record: ComparisonRecord) -> list[str]:
    """Which strategies differ, one line each, and in one line the pairs that cannot be told apart."""
    alike = [f"{first} | {second}" for first, second in record.indistinguishable]
    open_ = f"cannot be told apart on {record.test_samples:,} test examples, which does not say that they are equal: "
    notes = [note for note in record.notes if "cannot be told apart" not in note]
    return notes + ([open_ + "; ".join(alike)] if alike else [])


def table(record: ComparisonRecord) -> Table:
    """A row a strategy, two lines each; `front` marks what no other is better than in all of the axes."""
    several = f", {len(record.seeds)} seeds" if len(record.seeds) > 1 else ""
    title = f"{record.comparison}, {record.test_samples} test examples{several}"
    comparison_table = Table(title=Text(title), caption=_caption(record), padding=(0, 1))
    comparison_table.add_column("strategy", overflow="fold")
    for column in COLUMNS:
        comparison_table.add_column(column, justify="right", no_wrap=True)
    claims = any(strategy.claim for strategy in record.strategies)
    if claims:
        comparison_table.add_column("promised", overflow="fold")
    for strategy in record.strategies:
        cells = _figures(strategy) if strategy.size_bytes is not None else ["-"] * len(COLUMNS)
        cells = [cell.replace(" [", "\n[") for cell in cells]
        comparison_table.add_row(
            _title(strategy),
            *cells,
            *([Text(strategy.claim or "")] if claims else []),
            end_section=strategy.name == BASELINE,
        )
    return comparison_table


def _caption(record: ComparisonRecord) -> str:
    uses = f"; this test split was used for {record.test_uses} models" if record.test_uses else ""
    return f"front of {', '.join(record.axes)}; it and the choice are made on validation, test stands beside{uses}"


def _title(strategy: StrategyRecord) -> Text:
    marks = [mark for mark, true in (("front", strategy.on_front), ("chosen", strategy.chosen)) if true]
    marks += ["failed"] if strategy.failures else []
    return Text.assemble(
        strategy.name, (f"\n{', '.join(marks)}", "dim" if not strategy.chosen else "green") if marks else ""
    )


def _figures(strategy: StrategyRecord) -> list[str]:
    compared = strategy.name != BASELINE
    ratios = [interval_text({"value": t.value, "low": t.low, "high": t.high}, 2) for t in strategy.latency]
    return [
        bytes_text(strategy.size_bytes or 0),
        f"{strategy.compression_ratio:.1f}x",
        count_text(strategy.params or 0),
        count_text(strategy.macs or 0),
        _score(strategy.score),
        *(
            [interval_text(retention) for retention in (strategy.validation_retention, strategy.retention)]
            if compared
            else "11"
        ),
        ("\n".join(ratios) or "-") if compared else "1",
        f"{strategy.seconds or 0:.1f} s",
    ]


def _score(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.mean:.4f}" + (f"\n+- {spread.deviation:.4f}" if spread.deviation is not None else "")
