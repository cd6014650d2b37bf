"""The page of a run, section by section."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from pipeline.base.formatting import interval_text
from pipeline.measure.gain import gain_text
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Record
from pipeline.report import commands
from pipeline.report.columns import spread_text, tokenizer_text
from pipeline.report.html import evidence, pictures
from pipeline.report.html.effects import effects
from pipeline.report.html.headline import judgement, tiles
from pipeline.report.html.layers.bytes import bytes_by_encoding, bytes_by_layer
from pipeline.report.html.layers.kernels import kernel_tables
from pipeline.report.html.layers.sensitivity import sensitivity_figure
from pipeline.report.html.layers.target import elsewhere
from pipeline.report.html.text import count_of, duration_text, joined, matrix_parts, settings_table
from pipeline.report.html.views import Cell, Details, Section, Short, Table
from pipeline.report.matrix import of_run
from pipeline.report.parts.packing import PACKING

MOST_STEPS = 7  # boxes of the chain in a line of a wide screen


def sections(record: Record) -> list[Section]:
    """All that there is to show of a run, in reading order; a section without content is left out."""
    all_sections = [
        Section("chain", "The chain", _chain(record)),
        Section("trajectory", "Size against retention", _figures([evidence.trajectory(record)])),
        Section("effects", "What each stage took", _figures(effects(record), side_by_side=True)),
        Section("runtimes", "Runtimes", matrix_parts(of_run(record), record.chosen)),
        Section("latency", "Latency", _latency(record)),
        Section("target", "On the CPUs that it is for", elsewhere(record)),
        Section("classes", "By class", _classes(record)),
        Section("lost", "What was lost", _lost(record)),
        Section("sensitivity", "Sensitivity of layers", _figures([sensitivity_figure(record)])),
        Section("bytes", "Where the bytes are", _bytes(record)),
        Section("training", "Training", _figures(evidence.trainings(record))),
        Section("gain", "What distillation brought", _gains(record)),
        Section("said", "Warnings and notes", {"warnings": record.warnings, "notes": record.notes}),
        Section("settings", "Settings and reports", {"details": [*_baseline_details(record), *_details(record)]}),
        Section("data", "Data and environment", ground(record.data, record.environment, record.test_uses)),
        Section("again", "Reproduce and go on", _again(record)),
    ]
    return [section for section in all_sections if any(section.parts.values())]


def head(record: Record) -> dict[str, Any]:
    """The verdict, the headline figures, and what the page is called."""
    name = str(record.config.get("name") or record.run)
    about = [record.run, record.started.replace("T", " ").replace("+00:00", " UTC"), f"seed {record.seed}"]
    return {
        "title": name,
        "kind": "run",
        "about": about,
        "judgement": judgement(record),
        "failure": record.failure.message if record.failure else "",
        "tiles": tiles(record),
    }


def ground(data: Mapping[str, Any], environment: Mapping[str, Any], test_uses: int | None) -> dict[str, Any]:
    """Splits with their digests, how often test was used, and where it took place."""
    rows = [_split(name, split) for name, split in data.items()]
    uses = ""
    if test_uses is not None:
        verb = "was" if test_uses == 1 else "were"
        uses = f"{count_of(test_uses, 'model')} {verb} measured on this test split in this folder of runs."
        uses += " The more there are, the more a best one is best by luck." if test_uses > 1 else ""
    return {
        "splits": Table("Data", ["split", "examples", "digest"], rows, frozenset({2})) if rows else None,
        "uses": uses,
        "environment": settings_table("Environment", environment) if environment else None,
    }


def _split(name: str, split: Any) -> list[Cell]:
    fields = split if isinstance(split, dict) else {}
    digest, examples = str(fields.get("digest") or "-"), fields.get("examples")
    return [name, f"{examples:,}" if isinstance(examples, int) else "-", Short(digest[:12], digest)]


def _chain(record: Record) -> dict[str, Any]:
    text = tokenizer_text(record)
    beside = {"tokenizer": f"{text}."} if text else {}
    steps = pictures.steps(record)
    lines = ceil(len(steps) / MOST_STEPS)
    table = evidence.stages_table(record)
    return {"steps": steps, "columns": ceil(len(steps) / lines), "table": table, **beside}


def _figures(optional_figures: Sequence[Any], side_by_side: bool = False) -> dict[str, Any]:
    figures = [figure for figure in optional_figures if figure]
    return {"figures": figures, "side_by_side": side_by_side and bool(figures)}


def _bytes(record: Record) -> dict[str, Any]:
    figure, table = bytes_by_encoding(record)
    return {**_figures([*bytes_by_layer(record), figure], side_by_side=True), "table": table}


def _latency(record: Record) -> dict[str, Any]:
    figure, table, notes = evidence.latency(record)
    return {"figures": [figure] if figure else [], "table": None if figure else table, "remarks": notes}


def _classes(record: Record) -> dict[str, Any]:
    last = record.final if record.stages else None
    limit = next((gate.limit for gate in record.gates if gate.name == "worst_class"), None)
    return _figures([evidence.classes(last.classes, limit)] if last else [])


def _lost(record: Record) -> dict[str, Any]:
    if record.flipped is None:
        return {}
    figure, table = evidence.confusions(record.flipped)
    examples = [pictures.example_view(example, Path(record.folder)) for example in record.flipped.examples]
    return {"figures": [figure] if figure else [], "table": None if figure else table, "examples": examples}


def _gains(record: Record) -> dict[str, Any]:
    """A sentence and the figures for each stage with a control."""
    sentences, rows = [], list[Sequence[Cell]]()
    for stage in record.stages:
        if not (gain := stage.gain):
            continue
        shares = all(0 <= spread.mean <= 1 for spread in (gain.student, gain.control))
        sentence = gain_text(gain, examples=stage.test_samples, shares=shares, teacher="baseline")
        sentences.append(f"{stage.name}: {sentence}")
        figures = [interval_text(gain, 4), spread_text(gain.student, True), spread_text(gain.control, True)]
        rows.append([stage.name, *figures, interval_text(gain.control_drop, 4)])
    columns = ["stage", "gain [95 %]", "student", "on labels alone", "baseline minus labels alone [95 %]"]
    return {"sentences": sentences, "table": Table("Gain over labels alone", columns, rows) if rows else None}


def _baseline_details(record: Record) -> list[Details]:
    """How the baseline was made, as the config has it."""
    about = {key: record.config[key] for key in ("task", "model", "budget", "device") if record.config.get(key)}
    entries = record.config.get("baseline")
    tables = _tables("Task, model, budget", about)
    for i, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            settings = {key: value for key, value in entry.items() if key != "use"}
            tables.append(settings_table(f"{i + 1}. {entry.get('use', '')}", settings))
    tables += _reports(record.baseline)
    return [Details("Task, model and baseline", tables)] if tables else []


def _details(record: Record) -> list[Details]:
    return [
        Details(
            f"{s.position + 1}. {s.name}",
            [*(kernel_tables(s.kernels) if s.kernels else []), *_tables("Settings", s.settings), *_reports(s)],
            _stage_note(s),
        )
        for s in record.stages
    ]


def _tables(caption: str, settings: Mapping[str, Any]) -> list[Table]:
    return [settings_table(caption, settings)] if settings else []


def _reports(model: ModelRecord | None) -> list[Table]:
    """What stages reported, without the curves, which are drawn."""
    reports = model.reports if model else {}
    shown = {key: value for key, value in reports.items() if not isinstance(value, list)}
    if isinstance(packed := shown.get(PACKING), dict):
        shown[PACKING] = {key: value for key, value in packed.items() if key != "tensors"}  # which have a figure
    return _tables("Reports", shown)


def _stage_note(stage: StageRecord) -> str:
    parts = [f"{'taken from the store, made' if stage.cached else 'made'} in {duration_text(stage.seconds)}"]
    if stage.flips:
        lost = count_of(stage.flips.lost, "example")
        parts.append(f"{lost} lost and {stage.flips.gained:,} gained against the baseline")
    if stage.agreement is not None:
        parts.append(f"agrees with it on {stage.agreement:.1%}")
    if stage.validation_retention:
        parts.append(f"retention on validation {interval_text(stage.validation_retention)}")
    return joined(parts) + "."


def _again(record: Record) -> dict[str, Any]:
    note = commands.code_note(dict(record.environment)) if record.origin else "How it was started is not in its record."
    return {"commands": [*commands.reproduce(record), *commands.go_on(record)], "note": note}
