"""Points with intervals as plotly figures: the way of a chain, and the front of a comparison."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

from pipeline.report.html.text import label
from pipeline.report.html.views import Json

CLEAR = "rgba(0,0,0,0)"
INK, MUTED, LINE, ACCENT, SURFACE = (f"var(--{name})" for name in ("ink", "muted", "line", "accent", "surface"))
SERIES = [f"var(--series-{i})" for i in range(1, 7)]
LOG_FROM = 4  # a ratio of largest to smallest from which sizes are told by their logarithm


@dataclass(frozen=True)
class Axis:
    """What an axis shows; `limit` is drawn across it."""

    title: str
    format: str = ""
    suffix: str = ""
    is_count: bool = False
    limit: float | None = None


@dataclass(frozen=True)
class Point:
    """A point with an interval in each direction, its name of one or more lines, and what the pointer shows of it.

    `kind` is one of `KINDS`.
    """

    name: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    kind: str
    says: Sequence[str] = ()


KINDS: dict[str, Json] = {
    "baseline": {"symbol": "diamond", "color": MUTED, "size": 11, "line": {"color": MUTED, "width": 2}},
    "step": {"symbol": "circle", "color": ACCENT, "size": 11, "line": {"color": ACCENT, "width": 2}},
    "front": {"symbol": "circle", "color": ACCENT, "size": 12, "line": {"color": ACCENT, "width": 2}},
    "chosen": {"symbol": "star", "color": "var(--pass)", "size": 18, "line": {"color": "var(--pass)", "width": 1}},
    "dominated": {"symbol": "circle", "color": SURFACE, "size": 12, "line": {"color": MUTED, "width": 2}},
}
NAMES = {"step": "after a stage", "front": "on the front"}
"""Of kinds that are not told by their own word."""


def figure_json(traces: Sequence[Json], x: Json, y: Json, height: int = 360, **layout: Any) -> Json:
    """A plotly figure as JSON, without plotly's own colours, legend and margins; what is no number is null."""
    axis = {"gridcolor": LINE, "linecolor": LINE, "tickcolor": LINE, "zeroline": False, "automargin": True}
    settings = {
        "template": {"data": {"scatter": [{"type": "scatter"}]}},  # plotly's "none"
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"color": INK, "size": 12},
        "hoverlabel": {"bgcolor": SURFACE, "bordercolor": LINE, "font": {"color": INK}, "align": "left"},
        "showlegend": False,
        "dragmode": False,  # a finger that scrolls the page must not draw a box
        "height": height,
        "margin": {"l": 16, "r": 16, "t": 30, "b": 16},
        "xaxis": {**axis, **x},
        "yaxis": {**axis, **y},
        **layout,
    }
    figure: Json = json.loads(json.dumps({"data": traces, "layout": settings}), parse_constant=lambda _: None)
    return figure


def axis_json(title: str, **rest: Any) -> Json:
    """An axis with its title."""
    return {"title": {"text": label(title, 60), "standoff": 8, "font": {"color": MUTED, "size": 12}}, **rest}


def trace_json(name: str, **trace: Any) -> Json:
    """A trace that the legend lists; `meta` is its name as it is, for text that is not plotly's."""
    return {"name": label(name), "meta": name, "showlegend": True, "hoverinfo": "text", **trace}


def error_bars(values: Sequence[tuple[float, float, float]], color: str, width: int = 5) -> Json:
    """The intervals of values that are each with its low and its high end."""
    above, below = [high - value for value, _, high in values], [value - low for value, low, _ in values]
    bars = {"type": "data", "array": above, "arrayminus": below, "thickness": 1.5, "width": width, "color": color}
    return {**bars, "visible": any(above) or any(below)}


def line_across(value: float, line: Json, axis: str = "x") -> Json:
    """A line through the whole figure at a value of an axis."""
    other = "y" if axis == "x" else "x"
    at = {f"{axis}0": value, f"{axis}1": value, f"{other}ref": "paper", f"{other}0": 0, f"{other}1": 1}
    return {"type": "line", **at, "line": line}


def limit_lines(limit: float | None, axis: str = "x") -> list[Json]:
    """The line of a limit, where there is one."""
    return [] if limit is None else [line_across(limit, {"color": "var(--fail)", "width": 1.5, "dash": "dash"}, axis)]


def scatter(
    points: Sequence[Point], x: Axis, y: Axis, path: Sequence[tuple[float, float]] = (), shape: str = "linear"
) -> Json:
    """Points with intervals and a name on each; limits as lines, the allowed side free of colour.

    Args:
        points: what is drawn.
        x, y: the axes.
        path: points of a line behind them.
        shape: of that line, as plotly calls it.
    """
    logs = x.is_count and is_wide([p.x[0] for p in points])
    traces: list[Json] = []
    if len(path) > 1:
        line = {"color": MUTED, "width": 1.5, "dash": "dot", "shape": shape}
        along = {"x": [p[0] for p in path], "y": [p[1] for p in path]}
        traces.append({"type": "scatter", "mode": "lines", "line": line, "hoverinfo": "skip", **along})
    for kind in dict.fromkeys(point.kind for point in points):
        traces.append(_points(kind, [point for point in points if point.kind == kind]))
    across, up = (
        fitted_axis(x, [v for p in points for v in p.x], logs),
        fitted_axis(y, [v for p in points for v in p.y], False),
    )
    return figure_json(traces, across, up, height=420, shapes=[*limit_lines(x.limit), *limit_lines(y.limit, "y")])


def fitted_axis(axis: Axis, values: Sequence[float], logs: bool) -> Json:
    """The axis with room for names at its ends."""
    reached = [*values, *([] if axis.limit is None else [axis.limit])]
    scale = log10 if logs else float
    low, high = scale(min(reached)), scale(max(reached))
    room = (high - low) * 0.14 or abs(high) * 0.05 or 0.05
    settings: Json = {"range": [low - room, high + room], "tickformat": axis.format, "ticksuffix": axis.suffix}
    if logs:
        settings |= {**log_ticks(10**low, 10**high), "tickformat": "~s"}
    elif axis.is_count:
        settings |= {"tickformat": "~s"}
    return axis_json(axis.title, **settings, nticks=7)


def log_ticks(low: float, high: float) -> Json:
    """A logarithmic axis from `low` to `high`, above 0, with whole numbers at its ticks: plotly writes 2 for 0.02.

    They are powers of ten, and their double and fivefold where there are few.
    """
    powers = [10.0**n for n in range(floor(log10(low)), ceil(log10(high)) + 1)]
    steps = (1, 2, 5) if len(powers) < 4 else (1,)
    return {"type": "log", "tickvals": [float(f"{step * power:.1g}") for power in powers for step in steps]}


def is_wide(values: Sequence[float]) -> bool:
    """Whether values lie so far apart that an axis shows their logarithm."""
    return min(values) > 0 and max(values) / min(values) > LOG_FROM


def _points(kind: str, points: Sequence[Point]) -> Json:
    return trace_json(
        NAMES.get(kind, kind),
        type="scatter",
        mode="markers",
        x=[p.x[0] for p in points],
        y=[p.y[0] for p in points],
        error_x=error_bars([p.x for p in points], KINDS[kind]["line"]["color"]),
        error_y=error_bars([p.y for p in points], KINDS[kind]["line"]["color"]),
        marker=KINDS[kind],
        # The page writes the names where they cover least; how wide it is only the browser knows.
        text=["<br>".join(label(line) for line in p.name.splitlines()) for p in points],
        hovertext=[_hover_text(point) for point in points],
        cliponaxis=False,
    )


def _hover_text(point: Point) -> str:
    """What the pointer shows of a point."""
    name = label(" ".join(point.name.splitlines()), 60)
    return "<br>".join([f"<b>{name}</b>", *(label(text, 80) for text in point.says)])
