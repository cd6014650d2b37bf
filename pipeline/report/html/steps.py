"""The chain as a picture: a step for the baseline and for each stage, with size and accuracy."""

import re
from dataclasses import dataclass, field

from markupsafe import Markup

from pipeline.base.estimate import Estimate
from pipeline.base.formatting import bytes_text, interval_text
from pipeline.records.record import ModelRecord, Record, StageRecord
from pipeline.report.html.pictures import interval, square
from pipeline.report.html.text import duration_text


@dataclass(frozen=True)
class Step:
    """One box of the picture; `kind` is baseline, done, failed, stopped or left, that is not run."""

    name: str
    kind: str
    size: str = ""
    ratio: str = ""
    accuracy: str = ""
    accuracy_label: str = "retention"
    seconds: str = ""
    marks: list[str] = field(default_factory=list)
    square: Markup | None = None
    interval: Markup | None = None
    note: str = ""


def steps(record: Record) -> list[Step]:
    """What was done, what failed, and what was left, in the order of the chain."""
    chain_steps = [_baseline(record)]
    for stage in record.stages:
        chain_steps.append(_done(stage, record))
    positions = {stage.position for stage in record.stages}
    for position, name in enumerate(planned(record)):
        if position not in positions:
            chain_steps.append(_missing(record, position, name))
    return chain_steps


def planned(record: Record) -> list[str]:
    """The names of the stages that the config asks for."""
    entries = record.config.get("stages")
    stages = entries if isinstance(entries, list) else []
    return [str(entry.get("use", "stage")) if isinstance(entry, dict) else "stage" for entry in stages]


def accuracy_of(found: ModelRecord) -> tuple[str, str]:
    """Retention with its interval, or the score where there is none; and which of the two."""
    return ("retention", interval_text(found.retention)) if found.retention else ("score", f"{found.score:.4f}")


def _baseline(record: Record) -> Step:
    baseline = record.baseline
    if baseline is None:
        return Step("baseline", _ending(record) if record.failure else "left")
    scale = _scale(record)
    return Step(
        "baseline",
        "baseline",
        bytes_text(baseline.size_bytes),
        accuracy=f"{baseline.score:.4f}",
        accuracy_label="score",
        seconds=duration_text(baseline.seconds),
        marks=_marks(baseline),
        square=_square(baseline, record),
        interval=interval(None, scale, "the baseline: retention 1") if _has_retention(record) else None,
    )


def _done(stage: StageRecord, record: Record) -> Step:
    name, accuracy = accuracy_of(stage)
    ratio = f"{stage.compression_ratio:.1f}x"
    drawn = interval(stage.retention, _scale(record), f"{name} {accuracy}") if stage.retention else None
    return Step(
        stage.name,
        "done",
        bytes_text(stage.size_bytes),
        ratio,
        accuracy,
        name,
        duration_text(stage.seconds),
        _marks(stage),
        _square(stage, record),
        drawn,
        "" if stage.changed else "measured only, or changed nothing",
    )


def _missing(record: Record, position: int, name: str) -> Step:
    where = record.failure.where if record.failure else ""
    if re.match(rf"stages\[{position}\]", where):
        return Step(name, _ending(record))
    return Step(name, "left")


def _ending(record: Record) -> str:
    return "stopped" if record.failure and record.failure.is_stop else "failed"


def _marks(model: ModelRecord) -> list[str]:
    forms = {"torch": "torch model", "onnx": "ONNX file", "seq2seq": "ONNX files"}
    return [*(["cached"] if model.cached else []), forms[model.form]]


def _square(model: ModelRecord, record: Record) -> Markup:
    sizes = [m.size_bytes for m in (record.baseline, *record.stages) if m]
    whole = record.baseline.size_bytes if record.baseline else model.size_bytes
    says = f"{bytes_text(model.size_bytes)}, the baseline {bytes_text(whole)}"
    return square(model.size_bytes, whole, max(sizes), says)


def _has_retention(record: Record) -> bool:
    return any(stage.retention for stage in record.stages)


def _scale(record: Record) -> tuple[float, float]:
    """One scale for all intervals, with 1 on it."""
    retentions: list[Estimate] = [stage.retention for stage in record.stages if stage.retention]
    low, high = min([1.0, *(e.low for e in retentions)]), max([1.0, *(e.high for e in retentions)])
    room = (high - low) * 0.06 or 0.01
    return low - room, high + room
