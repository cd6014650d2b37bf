"""Figures and names as text, for the page and for plotly, which reads some HTML in its texts."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from pipeline.records.figures import flatten, number
from pipeline.records.parts.chosen import Chosen
from pipeline.records.rows import OTHER, chosen_text
from pipeline.report.html.views import Cell, Table
from pipeline.report.matrix import FIGURES, Matrix

MARKS = {"same decisions": "pass", "within the budget": "pass", OTHER: "fail"}
"""Colours of the verdicts of scores in runtimes."""

LONGEST = 400  # characters of a setting


def numbers(values: object) -> list[float]:
    """A list of finite numbers, or an empty one for anything else."""
    parsed_values = [number(value) for value in values] if isinstance(values, list) else []
    return [] if None in parsed_values else [value for value in parsed_values if value is not None]


def label(text: str, longest: int = 28) -> str:
    """A name in a plotly text, shortened and escaped.

    Plotly takes out tags, reads entities, and takes $ for TeX.
    """
    return html.escape(shortened(text, longest)).replace("$", "&#36;")


def shortened(text: str, longest: int) -> str:
    """A name that is cut in the middle where it is long, since both ends tell."""
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


def times_text(ratio: float) -> str:
    """78.72 -> 78.7 times smaller."""
    if ratio <= 0 or abs(ratio - 1) < 0.005:
        return "the same"
    return f"{ratio:.1f} times smaller" if ratio > 1 else f"{1 / ratio:.2f} times larger"


def milliseconds(value: object) -> str:
    """0.04321 -> 0.0432."""
    duration = number(value)
    return "-" if duration is None else f"{duration:.3g}"


def duration_text(seconds: float | None) -> str:
    """How long something took: 12.3 s, 4 min 10 s, 2 h 05 min."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def span_text(estimate: BaseModel | Mapping[str, Any], digits: int = 3) -> str:
    """95 %: 0.970 to 1.001; empty where there is no interval."""
    ends = estimate.model_dump() if isinstance(estimate, BaseModel) else estimate
    return "" if None in (ends["low"], ends["high"]) else f"95 %: {ends['low']:.{digits}f} to {ends['high']:.{digits}f}"


def sentence(text: str) -> str:
    """Text that begins with a capital and ends with a stop; an empty one stays."""
    return text and text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def count_of(count: int, one: str, many: str = "") -> str:
    """1 limit, 2 limits."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def joined(words: Sequence[str]) -> str:
    """a, b and c."""
    return ", ".join(words[:-1]) + f" and {words[-1]}" if len(words) > 1 else "".join(words)


def settings_table(caption: str, settings: Mapping[str, Any], most: int = 80) -> Table:
    """Nested JSON as a table of dotted keys; the rest of a long one is counted."""
    flat = flatten(dict(settings))
    rows: list[Sequence[Cell]] = [[key, _value(value)] for key, value in list(flat.items())[:most]]
    if len(flat) > most:
        rows.append(["…", f"{len(flat) - most:,} more in record.json"])
    return Table(caption, ["key", "value"], rows, words=frozenset({1}))


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else "-" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def matrix_parts(matrix: Matrix, chosen: Chosen | None) -> dict[str, Any]:
    """What the section on runtimes shows; empty where nothing was measured in one."""
    if not matrix.spots:
        return {}
    choice = sentence(f"chosen: {chosen_text(chosen)}" if chosen.pair else chosen.reason) if chosen else ""
    kind = "chosen" if chosen and chosen.pair else "inconclusive"
    return {"matrix": matrix, "titles": FIGURES, "marks": MARKS, "choice": choice, "kind": kind}
