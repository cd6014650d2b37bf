"""Small pictures of our own: a square as large as a file, an interval, a curve; and the images of a run folder."""

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from markupsafe import Markup

from pipeline.base.estimate import Estimate
from pipeline.records.record import Example
from pipeline.report.html.text import numbers

PNG = b"\x89PNG\r\n\x1a\n"
LARGEST_IMAGE = 2_000_000  # bytes of one image
SMALL = 96  # pixels under which an image is shown with its pixels as squares


def square(size: float, whole: float, largest: float, says: str) -> Markup:
    """A filled square whose area is `size`, in an outline whose area is `whole`, on a scale where `largest` fits."""
    side, outline = (max(2.0, 68 * sqrt(max(value, 0) / (largest or 1))) for value in (size, whole))
    return Markup(
        '<svg class="square" viewBox="0 0 72 72" role="img" aria-label="{says}">'
        '<rect class="ghost" x="2" y="{top:.1f}" width="{outline:.1f}" height="{outline:.1f}" rx="3"/>'
        '<rect class="fill" x="2" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" rx="{round:.1f}"/></svg>'
    ).format(says=says, top=70 - outline, outline=outline, y=70 - side, side=side, round=min(3.0, side / 4))


def interval(found: Estimate | None, scale: tuple[float, float], says: str, reference: float = 1.0) -> Markup:
    """A dot with its interval on a line from scale[0] to scale[1], and a tick where the baseline is."""
    low, high = scale
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return 6 + 108 * min(max((value - low) / span, 0.0), 1.0)

    parts = [
        Markup('<svg class="interval" viewBox="0 0 120 20" role="img" aria-label="{}">').format(says),
        Markup('<line class="rail" x1="6" x2="114" y1="10" y2="10"/>'),
        Markup('<line class="tick" x1="{0:.1f}" x2="{0:.1f}" y1="2" y2="18"/>').format(at(reference)),
    ]
    if found:
        whisker = Markup('<line class="whisker" x1="{:.1f}" x2="{:.1f}" y1="10" y2="10"/>')
        parts.append(whisker.format(at(found.low), at(found.high)))
        parts.append(Markup('<circle class="dot" cx="{:.1f}" cy="10" r="4.5"/>').format(at(found.value)))
    return Markup("").join([*parts, Markup("</svg>")])


def curve(values: Sequence[float], says: str) -> Markup:
    """Numbers as a line."""
    low, span = min(values), (max(values) - min(values)) or 1.0
    step = 196 / max(len(values) - 1, 1)
    points = " ".join(f"{2 + i * step:.1f},{58 - 56 * (value - low) / span:.1f}" for i, value in enumerate(values))
    return Markup(
        '<svg class="curve" viewBox="0 0 200 60" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<polyline points="{}"/></svg>'
    ).format(says, points)


@dataclass(frozen=True)
class Shown:
    """An example as the page shows it: a picture, or text."""

    title: str
    says: str
    picture: Markup | None = None
    text: str | None = None


def example(found: Example, folder: Path) -> Shown:
    """A lost example: what it is, what the baseline and the model said, and what it looks like."""
    title = f"Test example {found.index:,}"
    truth = f"is {found.label}" if found.label is not None else ""
    baseline_text = f"baseline said {found.baseline}" if found.baseline is not None else ""
    now = f"now taken for {found.predicted}" if found.predicted is not None else ""
    scores = f"score {found.baseline_score:.3g} before, {found.score:.3g} now"
    says = "; ".join(text for text in (truth, baseline_text, now, scores) if text)
    if found.kind == "image":
        picture = image(folder, found.file, f"{title}: {says}")
        return Shown(title, says, picture, None if picture else "The image is not in the run folder.")
    if found.kind == "numbers":
        values = numbers(list(found.numbers))
        return Shown(title, says, curve(values, f"{title}: {says}") if values else None, None if values else "-")
    return Shown(title, says, text=found.text or "-")


def image(folder: Path, file: str | None, says: str) -> Markup | None:
    """A PNG of the run folder as an <img> that carries it; None where it is not there, not in there, or no PNG."""
    path = (folder / (file or "")).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file() or path.stat().st_size > LARGEST_IMAGE:
        return None
    content = path.read_bytes()
    if not content.startswith(PNG) or len(content) < 24:
        return None
    width, height = struct.unpack(">II", content[16:24])
    kind = "pixels" if max(width, height) < SMALL else "photo"
    data = base64.b64encode(content).decode()
    return Markup('<img class="{}" src="data:image/png;base64,{}" alt="{}">').format(kind, data, says)
