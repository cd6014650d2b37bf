"""What each stage did to the bytes and to the accuracy: waterfalls whose steps add up to the whole."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from pipeline.base.formatting import bytes_text, interval_text
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Record
from pipeline.report.html.plots.charts import Axis, is_wide
from pipeline.report.html.plots.waterfall import Step, waterfall
from pipeline.report.html.views import Figure, Plot, Table

SHOWN = 1.05  # a ratio of bytes from which it is worth a word


@dataclass(frozen=True)
class Quantity:
    """What a waterfall is of: its value of a model, and how it and its changes are told."""

    key: str
    title: str
    words: str
    axis: Axis
    value: Callable[[ModelRecord], float]
    text: Callable[[float], str]
    change: Callable[[float, float], str]
    less_is_better: bool = False


def effects(record: Record) -> list[Figure]:
    """A figure of the bytes and one of the accuracy, each where a stage changed it."""
    if record.baseline is None:
        return []
    return [figure for quantity in (BYTES, _accuracy(record)) if (figure := _figure(record, quantity))]


def _figure(record: Record, quantity: Quantity) -> Figure | None:
    steps = _steps(record, quantity)
    if all(step.before == step.after for _, step in steps):
        return None
    first, last = steps[0][1].before, steps[-1][1].after
    words = f"{quantity.words}; together {quantity.change(first, last)}."
    if quantity.axis.is_count and is_wide([first, *(step.after for _, step in steps)]):
        words += " The axis is logarithmic: bars of one length are the same ratio."
    rows = [[stage.name, *_cells(step, quantity), interval_text(stage.retention_before)] for stage, step in steps]
    total = Step("together", first, last, quantity.change(first, last))
    table = Table(
        quantity.title,
        ["stage", "before", "after", "change", "retention against the model before [95 %]"],
        [*rows, [total.name, *_cells(total, quantity), "-"]],
    )
    ends = quantity.text(first), quantity.text(last)
    plot = waterfall([step for _, step in steps], ends, quantity.axis, quantity.less_is_better)
    return Figure(f"effects-{quantity.key}", quantity.title, words, [Plot("", plot)], table)


def _steps(record: Record, quantity: Quantity) -> list[tuple[StageRecord, Step]]:
    """A step for each stage, but for those that only measured."""
    models = [model for _, model in record.models]
    steps = []
    for before, stage in pairwise(models):
        start, end = quantity.value(before), quantity.value(stage)
        if isinstance(stage, StageRecord) and (stage.changed or start != end):
            says = [f"{quantity.text(start)} → {quantity.text(end)}"]
            steps.append((stage, Step(stage.name, start, end, quantity.change(start, end), says)))
    return steps


def _cells(step: Step, quantity: Quantity) -> list[str]:
    return [quantity.text(step.before), quantity.text(step.after), step.change]


def _bytes_change(before: float, after: float) -> str:
    if before == after:
        return "the same"
    text = f"{'+' if after > before else '-'}{bytes_text(abs(after - before))}"
    return text + (f" ({before / after:.1f}x)" if after and before / after >= SHOWN else "")


BYTES = Quantity(
    "bytes",
    "Bytes by stage",
    "Bytes to deploy that each stage took away (green) or added (red)",
    Axis("bytes to deploy", is_count=True),
    lambda model: float(model.size_bytes),
    bytes_text,
    _bytes_change,
    less_is_better=True,
)


def _accuracy(record: Record) -> Quantity:
    """Retention where every stage has it, else the score."""
    has_retention = all(stage.retention for stage in record.stages)
    in_points = has_retention or all(0 <= model.score <= 1 for _, model in record.models)

    def value(model: ModelRecord) -> float:
        if not has_retention:
            return model.score
        return model.retention.value if model.retention else 1.0  # the baseline's

    def change(before: float, after: float) -> str:
        return f"{round(100 * (after - before), 2) + 0.0:+.2f} points" if in_points else f"{after - before:+.4g}"

    name = "retention" if has_retention else "score"
    unit = f"Points of {name}" if in_points else name.capitalize()
    words = f"{unit} that each stage won (green) or lost (red)"
    return Quantity("accuracy", f"{name.capitalize()} by stage", words, Axis(name), value, "{:.4f}".format, change)
