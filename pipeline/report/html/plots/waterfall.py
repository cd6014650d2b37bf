"""What each step adds or takes away, from a first value to a last, as a plotly figure."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.html.plots.charts import ACCENT, MUTED, Axis, figure_json, fitted_axis, is_wide
from pipeline.report.html.text import label
from pipeline.report.html.views import Json

ROW = 46  # pixels: two lines of text and a gap
THICK = 0.55  # of a bar, as a share of its row


@dataclass(frozen=True)
class Step:
    """A change from one value to the next: its name, the change in words, and what the pointer shows of it."""

    name: str
    before: float
    after: float
    change: str
    says: Sequence[str] = ()


def waterfall(steps: Sequence[Step], ends: tuple[str, str], axis: Axis, less_is_better: bool) -> Json:
    """A bar a step from the value before to the value after, green for the better and red for the worse.

    Args:
        steps: one or more, each beginning where the one before it ends.
        ends: the first and the last value in words.
        axis: of the values; sizes lie on it from zero, or by their logarithm where they are far apart.
        less_is_better: whether a smaller value is a gain.
    """
    values = [steps[0].before, *(step.after for step in steps)]
    logs = axis.is_count and is_wide(values)
    across = fitted_axis(axis, values, logs)
    if axis.is_count and not logs:
        across |= {"range": [0, 1.06 * max(values)]}
    names = [("baseline", ends[0]), *((step.name, step.change) for step in steps), ("last model", ends[1])]
    ticks = [f"<b>{label(name, 22)}</b><br>{label(text, 32)}" for name, text in names]
    up = {"tickvals": list(range(len(names))), "ticktext": ticks, "range": [len(names) - 0.5, -0.5], "showgrid": False}
    whole = _from_zero(values) if axis.is_count and not logs else _marks(values, ends)
    traces = [_links(values), whole, _bars(steps, less_is_better)]
    return figure_json(traces, across, up, height=70 + ROW * len(names), barmode="overlay")


def _bars(steps: Sequence[Step], less_is_better: bool) -> Json:
    colors = [_color(step.after - step.before, less_is_better) for step in steps]
    return {
        "type": "bar",
        "orientation": "h",
        "base": [min(step.before, step.after) for step in steps],
        "x": [abs(step.after - step.before) for step in steps],
        "y": list(range(1, len(steps) + 1)),
        "width": THICK,
        "marker": {"color": colors, "line": {"color": colors, "width": 2}},  # a change of nothing is a line
        "hoverinfo": "text",
        "hovertext": [_hover_text(step.name, [step.change, *step.says]) for step in steps],
    }


def _from_zero(values: Sequence[float]) -> Json:
    """The first and the last value as bars from zero."""
    at = {"x": [values[0], values[-1]], "y": [0, len(values)], "width": THICK}
    return {"type": "bar", "orientation": "h", "marker": {"color": [MUTED, ACCENT]}, "hoverinfo": "skip", **at}


def _marks(values: Sequence[float], texts: tuple[str, str]) -> Json:
    """The first and the last value as marks, where bars from zero would mislead."""
    marker = {"symbol": ["diamond", "circle"], "size": 12, "color": [MUTED, ACCENT]}
    says = [_hover_text(name, [text]) for name, text in zip(("baseline", "last model"), texts, strict=True)]
    at = {"x": [values[0], values[-1]], "y": [0, len(values)], "cliponaxis": False}
    return {"type": "scatter", "mode": "markers", "marker": marker, **at, "hoverinfo": "text", "hovertext": says}


def _links(values: Sequence[float]) -> Json:
    """A thin line from each row down to the next, at the value between them."""
    x = [v for value in values for v in (value, value, None)]
    y = [row for i in range(len(values)) for row in (i, i + 1, None)]
    line = {"color": MUTED, "width": 1, "dash": "dot"}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "hoverinfo": "skip"}


def _color(change: float, less_is_better: bool) -> str:
    if change == 0:
        return MUTED
    return "var(--pass)" if (change < 0) is less_is_better else "var(--fail)"


def _hover_text(name: str, texts: Sequence[str]) -> str:
    return "<br>".join([f"<b>{label(name, 60)}</b>", *(label(text, 80) for text in texts)])
