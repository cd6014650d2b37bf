"""The table at the end of a run, and what `shrink plan` and `shrink stages` print."""

from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pipeline.record import ModelRecord, Record, StageRecord
from pipeline.statistics import Estimate

VERDICTS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}


def show(record: Record, console: Console) -> None:
    """Print a run: the table, the verdict, the warnings, and where everything is."""
    console.print(table(record))
    notes = [Text(f"warning: {warning}", style="yellow") for warning in record.warnings]
    for gate in record.gates:
        notes.append(Text(f"{gate.verdict}: {gate.message}", style=VERDICTS[gate.verdict]))
    folder = shown(Path(record.folder))
    if record.final:
        notes.append(Text(f"model: {folder / record.final.file}"))
    notes.append(Text(f"run: {folder}    MLflow: make ui"))
    console.print(Group(*notes), soft_wrap=True)


def table(record: Record) -> Table:
    """A row a stage: size, ratio, params, MACs, score, retention with its interval, latency ratio, time."""
    made = Table(title=f"{record.run}, {record.baseline.test_samples if record.baseline else 0} test examples")
    made.add_column("stage")
    for column in ("size", "ratio", "params", "MACs", "score", "retention [95 %]", "latency ratio [95 %]", "time"):
        made.add_column(column, justify="right", no_wrap=True)
    if record.baseline:
        made.add_row("baseline", *_figures(record.baseline), end_section=True)
    for stage in record.stages:
        made.add_row(stage.name, *_figures(stage))
    return made


def shown(path: Path) -> Path:
    """A path as short as it can be told from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def bytes_text(count: float) -> str:
    """1,234 -> 1.2 kB; thousands, as the budget counts."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def count_text(count: float) -> str:
    """14,195,200 -> 14.2 M."""
    for unit in ("", " k", " M", " G"):
        if count < 1000:
            return f"{count:.0f}" if not unit else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:.1f} T"


def interval_text(estimate: Estimate | dict[str, Any] | None, digits: int = 3) -> str:
    """0.987 [0.970, 1.001]; a dash where there is none."""
    value = estimate.model_dump() if isinstance(estimate, Estimate) else estimate
    if not value or value.get("value") is None:
        return "-"
    if value.get("low") is None:
        return f"{value['value']:.{digits}f}"
    return f"{value['value']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def _figures(found: ModelRecord) -> list[str]:
    latency = found.latency if isinstance(found, StageRecord) else []
    ratios = [interval_text(entry.get("ratio"), 2) for entry in latency]  # type: ignore[arg-type]
    return [
        bytes_text(found.size_bytes),
        f"{found.compression_ratio:.1f}x",
        count_text(found.params),
        count_text(found.macs),
        f"{found.score:.4f}",
        interval_text(found.retention),
        "\n".join(ratios),
        f"{found.seconds:.1f} s",
    ]
