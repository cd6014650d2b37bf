"""The table at the end of a run, and what `shrink plan` and `shrink stages` print."""

import json
import os
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pipeline.base.formatting import bytes_text, count_text, interval_text, shown
from pipeline.records.record import GateRecord, ModelRecord, Record, StageRecord

WIDE = 126  # characters of a table with one line a row and names such as benchmark.latency
COLUMNS = ["size", "ratio", "params", "MACs", "score", "retention [95 %]", "latency ratio [95 %]", "time"]
VERDICTS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "skipped": "yellow"}


def show(record: Record, console: Console) -> None:
    """Print a run: the table, the notes, the warnings, the verdict, and where everything is."""
    console.print(*(part for part in (table(record, console.width), metrics_table(record, console.width)) if part))
    notes = [Text(note) for note in (tokenizer_text(record), *record.notes) if note]
    notes += [Text(f"warning: {warning}", style="yellow") for warning in record.warnings]
    notes += [Text(gate_text(gate), style=VERDICTS[gate.verdict]) for gate in record.gates]
    console.print(Group(*notes))
    folder = shown(Path(record.folder))
    if not _is_synced(Path(record.folder)):
        console.print(
            Text(f"warning: MLflow does not have this run whole; later: shrink sync {folder}", style="yellow")
        )
    places = [f"model: {folder / record.final.file}"] if record.final else []
    # Left to the terminal to wrap, so that a path can be copied whole.
    places.append(f"run: {folder}    MLflow: {_mlflow(Path(record.folder).parent)}")
    console.print(Text("\n".join(places)), soft_wrap=True)


def tokenizer_text(record: Record) -> str:
    """The model and the tokenizer that is deployed beside it, in bytes; empty where there is no tokenizer."""
    first, last = record.baseline, record.final
    if not first or not last or last.tokenizer_bytes is None:
        return ""
    before = f", the baseline's {_with_tokenizer(first)}" if record.stages else ""
    return f"Model and tokenizer: {_with_tokenizer(last)}{before}"


def _with_tokenizer(model: ModelRecord) -> str:
    beside = model.tokenizer_bytes or 0
    return f"{bytes_text(model.size_bytes)} + {bytes_text(beside)} = {bytes_text(model.size_bytes + beside)}"


def gate_text(gate: GateRecord) -> str:
    """A gate in a line: the verdict, what it counts as where that is another, what was found, what to change next."""
    counts = f", counts as {gate.counts_as}" if gate.counts_as and gate.counts_as != gate.verdict else ""
    return f"{gate.verdict}{counts}: {gate.message}" + (f". {gate.fix}." if gate.fix else "")


def _is_synced(folder: Path) -> bool:
    """What tracking left; a run without tracking misses nothing."""
    state = folder / "tracking.json"
    return not state.exists() or bool(json.loads(state.read_text())["synced"])


def _mlflow(runs: Path) -> str:
    """How to look at it in MLflow."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return uri
    default = runs == Path.cwd() / "runs" and Path("Makefile").exists()
    return "make ui" if default else f"mlflow ui --backend-store-uri sqlite:///{runs / 'mlflow.db'}"


def table(record: Record, width: int = WIDE) -> Table:
    """A row a stage: size, ratio, params, MACs, score, retention with its interval, latency ratio, time.

    Below `WIDE` columns two lines a row, so that at 80 no figure is cut off.
    """
    title = f"{record.run}, {record.baseline.test_samples if record.baseline else 0} test examples"
    stage_table = Table(title=title, padding=(0, 1 if width >= WIDE else 0), show_lines=width < WIDE)
    stage_table.add_column("stage", overflow="fold")
    for column in _lines(COLUMNS, width):
        stage_table.add_column(column, justify="right", no_wrap=True)
    if record.baseline:
        stage_table.add_row("baseline", *_lines(_figures(record.baseline), width), end_section=True)
    for stage in record.stages:
        stage_table.add_row(stage.name, *_lines(_figures(stage), width))
    return stage_table


def metrics_table(record: Record, width: int = WIDE) -> Table | None:
    """A row a stage and metric over the whole test split, beside the baseline's; None where there are no metrics."""
    models = [*([("baseline", record.baseline)] if record.baseline else []), *((s.name, s) for s in record.stages)]
    if not any(model.metrics for _, model in models):
        return None
    metric_table = Table(title="metrics over all test examples", padding=(0, 1 if width >= WIDE else 0))
    metric_table.add_column("stage", overflow="fold")
    metric_table.add_column("metric", overflow="fold")
    for column in _wrapped(["value [95 %]", "baseline minus it [95 %]", "share of baseline's [95 %]"], width):
        metric_table.add_column(column, justify="right", no_wrap=True)
    for stage, model in models:
        for name, value in model.metrics.items():
            beside = model.metrics_drop.get(name), model.metrics_retention.get(name)
            metric_table.add_row(stage, name, *_wrapped([interval_text(each) for each in (value, *beside)], width))
    return metric_table


def model_cells(found: ModelRecord) -> list[str]:
    """Size, ratio, params, MACs, score and retention of a model, for the tables of every medium."""
    return [
        bytes_text(found.size_bytes),
        f"{found.compression_ratio:.1f}x",
        count_text(found.params),
        count_text(found.macs),
        f"{found.score:.4f}",
        interval_text(found.retention),
    ]


def _lines(cells: list[str], width: int) -> list[str]:
    """The cells of a row; on a narrow terminal ratio under size, MACs under params, and intervals under their value."""
    if width >= WIDE:
        return cells
    size, ratio, params, macs, *rest = cells
    return [f"{size}\n{ratio}", f"{params}\n{macs}", *_wrapped(rest, width)]


def _wrapped(cells: list[str], width: int) -> list[str]:
    """The cells; on a narrow terminal with intervals under their value."""
    return cells if width >= WIDE else [cell.replace(" [", "\n[") for cell in cells]


def _figures(model: ModelRecord) -> list[str]:
    latency = model.latency if isinstance(model, StageRecord) else []
    ratios = [interval_text(entry.get("ratio"), 2) for entry in latency]  # type: ignore[arg-type]
    return [
        *model_cells(model),
        "\n".join(ratios),
        f"{model.seconds:.1f} s",
    ]
