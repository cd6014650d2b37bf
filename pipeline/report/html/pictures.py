"""The pictures that are our own: the chain, a square and an interval for each step, and the worst examples."""

import base64
import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

from markupsafe import Markup

from pipeline.base.estimate import Estimate
from pipeline.base.formatting import bytes_text, interval_text
from pipeline.records.parts.flipped import Example
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Record
from pipeline.report.html.text import duration_text, numbers

PNG = b"\x89PNG\r\n\x1a\n"
LARGEST_IMAGE = 2_000_000  # bytes of one image
SMALL = 96  # pixels under which an image is shown with its pixels as squares
FORMS = {"torch": "torch model", "onnx": "ONNX file", "seq2seq": "ONNX files"}


@dataclass(frozen=True)
class Step:
    """One box of the chain; `kind` is baseline, done, failed, stopped or left, that is not run."""

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
    ending = "stopped" if record.failure and record.failure.is_stop else "failed"
    baseline = [] if record.baseline else [Step("baseline", ending if record.failure else "left")]
    where = re.match(r"stages\[(\d+)\]", record.failure.where) if record.failure else None
    place = int(where[1]) if where else None
    positions = {stage.position for stage in record.stages}
    missing = [(i, name) for i, name in enumerate(_stage_names(record)) if i not in positions]
    return [
        *baseline,
        *(_step(name, model, record) for name, model in record.models),
        *(Step(name, ending if i == place else "left") for i, name in missing),
    ]


def accuracy_of(model: ModelRecord) -> tuple[str, str]:
    """Retention with its interval, or the score where there is none; and which of the two."""
    return ("retention", interval_text(model.retention)) if model.retention else ("score", f"{model.score:.4f}")


def _stage_names(record: Record) -> list[str]:
    """The names of the stages that the config asks for."""
    entries = record.config.get("stages")
    stages = entries if isinstance(entries, list) else []
    return [str(entry.get("use", "stage")) if isinstance(entry, dict) else "stage" for entry in stages]


def _step(name: str, model: ModelRecord, record: Record) -> Step:
    label, accuracy = accuracy_of(model)
    retentions = [stage.retention for stage in record.stages if stage.retention]
    scale = _scale(retentions)
    stage = model if isinstance(model, StageRecord) else None
    estimate, alt = (stage.retention, f"{label} {accuracy}") if stage else (None, "the baseline: retention 1")
    return Step(
        name,
        "done" if stage else "baseline",
        bytes_text(model.size_bytes),
        f"{stage.compression_ratio:.1f}x" if stage else "",
        accuracy,
        label,
        duration_text(model.seconds),
        marks=[*(["cached"] if model.cached else []), FORMS[model.form]],
        square=_square(model, record),
        interval=interval(estimate, scale, alt) if estimate or (retentions and not stage) else None,
        note="measured only, or changed nothing" if stage and not stage.changed else "",
    )


def _square(model: ModelRecord, record: Record) -> Markup:
    largest = max(other.size_bytes for _, other in record.models)
    baseline = (record.baseline or model).size_bytes
    alt = f"{bytes_text(model.size_bytes)}, the baseline {bytes_text(baseline)}"
    return square(model.size_bytes, baseline, largest, alt)


def _scale(retentions: Sequence[Estimate]) -> tuple[float, float]:
    """One scale for all intervals, with 1 on it."""
    low, high = min([1.0, *(e.low for e in retentions)]), max([1.0, *(e.high for e in retentions)])
    room = (high - low) * 0.06 or 0.01
    return low - room, high + room


def square(size: float, whole: float, largest: float, alt: str) -> Markup:
    """A filled square whose area is `size`, in an outline whose area is `whole`, on a scale where `largest` fits."""
    side, outline = (max(2.0, 68 * sqrt(max(value, 0) / (largest or 1))) for value in (size, whole))
    return Markup(
        '<svg class="square" viewBox="0 0 72 72" role="img" aria-label="{alt}">'
        '<rect class="ghost" x="2" y="{top:.1f}" width="{outline:.1f}" height="{outline:.1f}" rx="3"/>'
        '<rect class="fill" x="2" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" rx="{round:.1f}"/></svg>'
    ).format(alt=alt, top=70 - outline, outline=outline, y=70 - side, side=side, round=min(3.0, side / 4))


def interval(estimate: Estimate | None, scale: tuple[float, float], alt: str, reference: float = 1.0) -> Markup:
    """A dot with its interval on a line from scale[0] to scale[1], and a tick where the baseline is."""
    low, high = scale
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return 6 + 108 * min(max((value - low) / span, 0.0), 1.0)

    parts = [
        Markup('<svg class="interval" viewBox="0 0 120 20" role="img" aria-label="{}">').format(alt),
        Markup('<line class="rail" x1="6" x2="114" y1="10" y2="10"/>'),
        Markup('<line class="tick" x1="{0:.1f}" x2="{0:.1f}" y1="2" y2="18"/>').format(at(reference)),
    ]
    if estimate:
        whisker = Markup('<line class="whisker" x1="{:.1f}" x2="{:.1f}" y1="10" y2="10"/>')
        parts.append(whisker.format(at(estimate.low), at(estimate.high)))
        parts.append(Markup('<circle class="dot" cx="{:.1f}" cy="10" r="4.5"/>').format(at(estimate.value)))
    return Markup("").join([*parts, Markup("</svg>")])


def curve(values: Sequence[float], alt: str) -> Markup:
    """Numbers as a line."""
    low, span = min(values), (max(values) - min(values)) or 1.0
    step = 196 / max(len(values) - 1, 1)
    points = " ".join(f"{2 + i * step:.1f},{58 - 56 * (value - low) / span:.1f}" for i, value in enumerate(values))
    return Markup(
        '<svg class="curve" viewBox="0 0 200 60" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<polyline points="{}"/></svg>'
    ).format(alt, points)


@dataclass(frozen=True)
class ExampleView:
    """An example as the page shows it: a picture, or text."""

    title: str
    says: str
    picture: Markup | None = None
    text: str | None = None


def example_view(example: Example, folder: Path) -> ExampleView:
    """A lost example: what it is, what the baseline and the model said, and what it looks like."""
    title = f"Test example {example.index:,}"
    truth = f"is {example.label}" if example.label is not None else ""
    baseline_text = f"baseline said {example.baseline}" if example.baseline is not None else ""
    now = f"now taken for {example.predicted}" if example.predicted is not None else ""
    scores = f"score {example.baseline_score:.3g} before, {example.score:.3g} now"
    says = "; ".join(text for text in (truth, baseline_text, now, scores) if text)
    if example.kind == "image":
        picture = image(folder, example.file, f"{title}: {says}", example.digest)
        missing = "The image is not in the run folder, or not what was written."
        return ExampleView(title, says, picture, None if picture else missing)
    if example.kind == "numbers":
        values = numbers(list(example.numbers))
        return ExampleView(title, says, curve(values, f"{title}: {says}") if values else None, None if values else "-")
    return ExampleView(title, says, text=example.text or "-")


def image(folder: Path, file: str | None, alt: str, digest: str | None = None) -> Markup | None:
    """A PNG of the run folder as an <img> that carries it; None where it is not there, not in there, or another."""
    path = (folder / (file or "")).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file() or path.stat().st_size > LARGEST_IMAGE:
        return None
    content = path.read_bytes()
    is_written = digest is None or hashlib.sha256(content).hexdigest() == digest
    if not is_written or not content.startswith(PNG) or len(content) < 24:
        return None
    width, height = struct.unpack(">II", content[16:24])
    kind = "pixels" if max(width, height) < SMALL else "photo"
    data = base64.b64encode(content).decode()
    return Markup('<img class="{}" src="data:image/png;base64,{}" alt="{}">').format(kind, data, alt)
