"""The figures of a run's page, each with its words and its table; None where the record has nothing to show."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from pipeline.base.formatting import bytes_text, interval_text
from pipeline.records.figures import curves, number
from pipeline.records.parts.flipped import Flipped
from pipeline.records.parts.models import ClassMeasure, ModelRecord
from pipeline.records.record import Record
from pipeline.records.rows import estimate
from pipeline.report.columns import STAGES, ratio_of, stage_cells
from pipeline.report.html.headline import setting_of, verdict_of
from pipeline.report.html.pictures import accuracy_of
from pipeline.report.html.plots import panels
from pipeline.report.html.plots.charts import Axis, Point, scatter
from pipeline.report.html.text import count_of, duration_text, milliseconds, numbers, sentence, times_text
from pipeline.report.html.views import Cell, Figure, Plot, Table

USUAL = {"p999_ms", "energy", "startup", "score.worst"}
"""Figures that most runs do not have, at least not whole: the record alone says why."""
SCORES = ("validation_score",)


def stages_table(record: Record) -> Table:
    """The columns of the terminal's table, a row for the baseline and for each stage."""
    rows = [
        [name, *(cell or "-" for cell in stage_cells(model)), duration_text(model.seconds)]
        for name, model in record.models
    ]
    return Table("Baseline and stages", STAGES, rows)


def trajectory(record: Record) -> Figure | None:
    """Size against retention after each stage, or against the score where no retention is defined."""
    first = record.baseline
    if first is None or not record.stages:
        return None
    has_retention = all(stage.retention for stage in record.stages)
    start = (1.0, 1.0, 1.0) if has_retention else (first.score,) * 3
    points = [Point("baseline", (float(first.size_bytes),) * 3, start, "baseline", [bytes_text(first.size_bytes)])]
    # Stages that leave both figures as they are share a point, so that their names do not cover each other.
    for (size, up), group in groupby(record.stages, lambda s: (s.size_bytes, _height(s, has_retention))):
        same = list(group)
        texts = [bytes_text(size), times_text(same[0].compression_ratio), " ".join(accuracy_of(same[0]))]
        names = [s.name for s in same if s.changed] or [same[0].name]
        points.append(Point("\n→ ".join(names), (float(size),) * 3, up, "step", texts))
    x = Axis("size of the file to deploy", suffix="B", is_count=True, limit=_limit(record, "size_bytes", "size"))
    y = Axis("retention" if has_retention else "score", limit=_limit(record, "retention") if has_retention else None)
    words = "After each stage: bytes to deploy, and the share of the baseline's score that is left, with its interval."
    if x.limit is not None or y.limit is not None:
        words += " Dashed red lines are limits of the budget."
    titles = "size", "ratio", "score", "retention [95 %]"
    rows = [[name, *(stage_cells(model)[STAGES.index(title) - 1] for title in titles)] for name, model in record.models]
    table = Table("Size and retention", ["stage", *titles], rows)
    plot = scatter(points, x, y, [(p.x[0], p.y[0]) for p in points])
    return Figure("trajectory", "Size against retention", words, [Plot("", plot)], table)


def latency(record: Record) -> tuple[Figure | None, Table | None, list[str]]:
    """Distributions where the record has them, the table of all settings, and why a figure is missing."""
    stage = record.latency_stage
    rows = [row for row in stage.latency if row] if stage else []
    if not stage or not rows:
        return None, None, []
    plots = []
    for row in rows:
        distribution = row.get("distribution_ms")
        model, base = (
            numbers(distribution.get(name)) if isinstance(distribution, dict) else [] for name in ("model", "baseline")
        )
        if len(model) > 1:
            plots.append(Plot(setting_of(row), panels.latencies(model, base), _latency_words(row)))
    table = _latency_table(rows)
    notes = [sentence(text) for text in dict.fromkeys(text for row in rows for text in [*_more(row), *_reasons(row)])]
    if stage.cached:
        notes.append("These latencies are those of an earlier run on this machine.")
    words = "Share of inferences that took at most so long, of all processes together; further left is faster."
    figure = Figure("latency", "Latency distributions", words, plots, table, "Setting") if plots else None
    return figure, table, notes


def classes(measures: Sequence[ClassMeasure], limit: float | None) -> Figure | None:
    """Retention by class, worst first."""
    if not any(c.retention for c in measures):
        return None
    rows: list[Sequence[Cell]] = [
        [c.label, f"{c.support:,}", f"{c.score:.3f}", interval_text(c.retention), *_lost(c)]
        for c in panels.worst_first(measures)
    ]
    columns = ["class", "examples", "score", "retention [95 %]", "lost", "gained"]
    words = "Retention of each class on the test split with its 95 % interval, worst first."
    if len(measures) > panels.MOST_CLASSES:
        words += f" Drawn are the worst {panels.MOST_CLASSES} of {len(measures):,}; the table has all."
    plot = panels.by_class(measures, limit)
    return Figure("classes", "Retention by class", words, [Plot("", plot)], Table("Classes", columns, rows))


def confusions(flipped: Flipped) -> tuple[Figure | None, Table | None]:
    """Flips by true and predicted class: as a figure with its table, or as a table where they are too many."""
    if not flipped.confusions:
        return None, None
    rows: list[Sequence[Cell]] = [[c.label, c.predicted, f"{c.count:,}"] for c in flipped.confusions[:200]]
    table = Table("What was lost", ["true class", "taken for", "examples"], rows, frozenset({1}))
    plot = panels.flips(flipped.confusions)
    words = "Examples that the baseline had right and the last model has wrong, by what they are and are taken for."
    return (Figure("flips", "Confusion of flips", words, [Plot("", plot)], table) if plot else None), table


def trainings(record: Record) -> list[Figure]:
    """A figure a stage that trained, with a drawing for each of its curves; like figures share one."""
    places = [("baseline", record.baseline), *((f"{s.position + 1}. {s.name}", s) for s in record.stages)]
    histories = [(i, name, curves(model)) for i, (name, model) in enumerate(places) if model]
    return [_training(i, name, history) for i, name, history in histories if history]


def _training(index: int, name: str, history: dict[str, list[float]]) -> Figure:
    groups: dict[str, dict[str, list[float]]] = {}
    for key, values in history.items():
        groups.setdefault(_kind(key), {})[key] = values
    # The score first, for it says whether the training was long enough; a loss nearly always falls.
    kinds = sorted(groups, key=lambda kind: kind not in SCORES)
    plots = [Plot(kind.replace("_", " "), panels.curves(kind.replace("_", " "), groups[kind])) for kind in kinds]
    epochs = max(len(values) for values in history.values())
    rows: list[Sequence[Cell]] = [
        [str(i), *(f"{values[i]:.4g}" if i < len(values) else "-" for values in history.values())]
        for i in range(epochs)
    ]
    words = f"{name}: {count_of(epochs, 'epoch')}{_course(history)}."
    table = Table(name, ["epoch", *history], rows)
    return Figure(f"training-{index}", f"Training of {name}", words, plots, table, "Curve")


def _course(history: Mapping[str, Sequence[float]]) -> str:
    """From what to what the score on validation went, and in which epoch it was at its best."""
    scores = next((values for key, values in history.items() if _kind(key) in SCORES and values), None)
    if scores is None:
        return ""
    best = max(range(len(scores)), key=scores.__getitem__)
    return f", score on validation from {scores[0]:.4f} to {scores[-1]:.4f}, at most {scores[best]:.4f} in epoch {best}"


def _kind(key: str) -> str:
    """What a curve is of: losses of all splits belong together, each other figure is for itself."""
    return "loss" if key.rpartition(".")[2].endswith("loss") else key.rpartition(".")[2]


def _height(model: ModelRecord, has_retention: bool) -> tuple[float, float, float]:
    share = model.retention if has_retention else None
    return (share.value, share.low, share.high) if share else (model.score,) * 3


def _limit(record: Record, *names: str) -> float | None:
    """The limit of the budget on a figure of the last model as it stands on an axis."""
    gates = [g for g in record.gates if g.name in names and not (g.name == "retention" and g.of == "expected")]
    return gates[0].limit if gates else None


def _latency_words(row: Mapping[str, Any]) -> str:
    ratio, noise = ratio_of(row), ratio_of(row, "noise")
    text = f"{setting_of(row)}: "
    if ratio is None:
        return text + "no ratio to a baseline."
    verdict = verdict_of(row)
    text += f"ratio to the baseline {interval_text(ratio, 2)}" + (f", {verdict}" if verdict else "")
    return text + (f"; noise of this machine (baseline against itself) {interval_text(noise, 2)}." if noise else ".")


def _latency_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = ["setting", "p50 ms", "p90 ms", "p99 ms", "baseline p50 ms", "ratio [95 %]", "noise [95 %]", "samples"]
    cells: list[Sequence[Cell]] = []
    for row in rows:
        times = [milliseconds(row.get(key)) for key in ("p50_ms", "p90_ms", "p99_ms", "baseline_p50_ms")]
        samples = number(row.get("samples"))
        ratios = [interval_text(ratio_of(row, key), 2) for key in ("ratio", "noise")]
        count = "-" if samples is None else f"{samples:,.0f}"
        provider = " ".join(str(row[key]) for key in ("execution_provider", "precision") if row.get(key))
        cells.append([setting_of(row), *times, *ratios, count, provider or "-", *_beside(row)])
    columns += ["provider", "start s", "peak memory", "same answers"]
    return Table("Latency in milliseconds", columns, cells, frozenset({8, 11}))


def _beside(row: Mapping[str, Any]) -> list[str]:
    """Seconds until the first inference was done, memory at most, and whether it answers as ONNX Runtime does."""
    startup, memory, agreement = (row.get(key) for key in ("startup", "memory", "agreement"))
    total = startup.get("total_s") if isinstance(startup, dict) else None
    seconds = number(total.get("value")) if isinstance(total, dict) else None
    start = "-" if seconds is None else f"{seconds:.2f}"
    peak = number(memory.get("peak_bytes")) if isinstance(memory, dict) else None
    apart = number(agreement.get("difference")) if isinstance(agreement, dict) else None
    answers = "-" if apart is None else f"{'yes' if row.get('agrees') else 'no'}, within {apart:.1e} of the range"
    return [start, "-" if peak is None else bytes_text(peak), answers]


def _more(row: Mapping[str, Any]) -> Iterator[str]:
    """How percentiles are told where they are bounds; throughput and energy where they were measured."""
    if row.get("percentiles") == "early stopping":
        yield "p90 and p99 are upper bounds by early stopping"
    throughput, energy = row.get("throughput"), row.get("energy")
    for line in throughput if isinstance(throughput, list) else []:
        count = number(line.get("concurrency")) if isinstance(line, dict) else None
        if count is not None and (each := estimate(line.get("per_second"))):
            doubt = f" [{each.low:,.0f}, {each.high:,.0f}]" if each.low < each.high else ""
            requests = f"{count_of(int(count), 'request')} at a time"
            yield f"{setting_of(row)}: {each.value:,.0f}{doubt} examples a second with {requests}"
    joules = number(energy.get("joules")) if isinstance(energy, dict) else None
    if joules is not None:
        yield f"{setting_of(row)}: {joules:.3g} J an inference, of the whole processors"


def _reasons(row: Mapping[str, Any]) -> list[str]:
    value = row.get("reasons")
    names = {"p50_ms": "p50", "p90_ms": "p90", "p99_ms": "p99"}
    reasons = value if isinstance(value, dict) else {}
    if row.get("skipped"):
        return [f"{setting_of(row)} was skipped: {row['skipped']}"]
    return [f"no {names.get(key, key)}: {text}" for key, text in reasons.items() if key not in USUAL]


def _lost(measure: ClassMeasure) -> list[str]:
    return [f"{measure.flips.lost:,}", f"{measure.flips.gained:,}"] if measure.flips else ["-", "-"]
