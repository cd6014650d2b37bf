"""Latencies, classes, flips, and curves of a training as plotly figures."""

from collections.abc import Mapping, Sequence
from math import isfinite

from pipeline.base.formatting import interval_text
from pipeline.records.figures import number
from pipeline.records.parts.flipped import Confusion
from pipeline.records.parts.models import ClassMeasure
from pipeline.report.html.plots.charts import (
    ACCENT,
    INK,
    MUTED,
    SERIES,
    axis_json,
    error_bars,
    figure_json,
    is_wide,
    limit_lines,
    line_across,
    log_ticks,
    trace_json,
)
from pipeline.report.html.text import label
from pipeline.report.html.views import Json

MOST_CLASSES = 40
MOST_CELLS = 20


def latencies(model: Sequence[float], baseline: Sequence[float]) -> Json:
    """Which share of the inferences took at most how many milliseconds; quantiles from 0 to 100 %, evenly spaced."""
    traces = []
    for name, values, color in (("baseline", baseline, MUTED), ("model", model, ACCENT)):
        if len(values) < 2:
            continue
        shares = [100 * i / (len(values) - 1) for i in range(len(values))]
        says = [f"<b>{name}</b><br>{s:.0f} % within {v:.3g} ms" for v, s in zip(values, shares, strict=True)]
        line = {"color": color, "width": 2.5}
        traces.append(
            trace_json(name, type="scatter", mode="lines", x=list(values), y=shares, line=line, hovertext=says)
        )
    times = [*model, *baseline]
    wide = min(times) > 0 and max(times) / min(times) > 8
    scale = {**log_ticks(min(times), max(times)), "tickformat": "~g"} if wide else {"nticks": 7}
    across = axis_json("latency (ms)", **scale)
    return figure_json(traces, across, axis_json("share of inferences", ticksuffix=" %", range=[0, 101]))


def by_class(classes: Sequence[ClassMeasure], limit: float | None = None) -> Json:
    """Retention of each class with its interval, worst at the top, at most `MOST_CLASSES`."""
    worst_classes = worst_first(classes)[:MOST_CLASSES]
    rows = [(i, c, c.retention) for i, c in enumerate(worst_classes) if c.retention]
    says = [
        f"<b>{label(c.label, 60)}</b><br>retention {interval_text(k)}<br>score {c.score:.3f} of {c.support:,}"
        for _, c, k in rows
    ]
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": [k.value for _, _, k in rows],
        "y": [i for i, _, _ in rows],
        "error_x": error_bars([(k.value, k.low, k.high) for _, _, k in rows], ACCENT, width=4),
        "marker": {"color": ACCENT, "size": 9},
        "hoverinfo": "text",
        "hovertext": says,
    }
    lines = [line_across(1, {"color": MUTED, "width": 1}), *limit_lines(limit)]
    up = {"tickvals": list(range(len(worst_classes))), "ticktext": [label(c.label, 20) for c in worst_classes]}
    up |= {"range": [len(worst_classes) - 0.5, -0.5]}
    return figure_json([dots], axis_json("retention", nticks=7), up, height=90 + 26 * len(worst_classes), shapes=lines)


def worst_first(classes: Sequence[ClassMeasure]) -> list[ClassMeasure]:
    """Classes by retention, least first; those without at the end."""
    return sorted(classes, key=lambda c: (c.retention is None, c.retention.value if c.retention else 0.0))


def flips(confusions: Sequence[Confusion]) -> Json | None:
    """True class by predicted class, of the examples that were lost; None for more classes than can be read."""
    truths = sorted({c.label for c in confusions}, key=_by_number)
    predictions = sorted({c.predicted for c in confusions}, key=_by_number)
    if not confusions or max(len(truths), len(predictions)) > MOST_CELLS:
        return None
    counts: list[list[int | None]] = [[None] * len(predictions) for _ in truths]
    for confusion in confusions:
        counts[truths.index(confusion.label)][predictions.index(confusion.predicted)] = confusion.count
    says = [
        [f"<b>{label(t)}</b> taken for <b>{label(p)}</b>: {counts[i][j] or 0}" for j, p in enumerate(predictions)]
        for i, t in enumerate(truths)
    ]
    cells = _heat(counts, says, max(c.count for c in confusions))
    across = axis_json("taken for", tickvals=cells["x"], ticktext=[label(p, 16) for p in predictions], showgrid=False)
    across |= {"range": [-0.5, len(predictions) - 0.5]}
    up = axis_json("true class", tickvals=cells["y"], ticktext=[label(t, 16) for t in truths], showgrid=False)
    up |= {"range": [len(truths) - 0.5, -0.5]}
    return figure_json([cells], across, up, height=110 + 34 * len(truths))


def _heat(counts: list[list[int | None]], says: list[list[str]], most: int) -> Json:
    """Cells by row and column, each with its count and what it says under the pointer."""
    return {
        "type": "heatmap",
        "z": counts,
        "x": list(range(len(counts[0]))),
        "y": list(range(len(counts))),
        "hovertext": says,
        "hoverinfo": "text",
        "hoverongaps": False,
        "xgap": 2,
        "ygap": 2,
        "zmin": 0,
        "zmax": most,
        "colorscale": [[0, "var(--heat-low)"], [1, "var(--heat-high)"]],
        "showscale": False,
        "texttemplate": "%{z}",
        "textfont": {"color": INK, "size": 13},
    }


def curves(kind: str, series: Mapping[str, Sequence[float]]) -> Json:
    """One or more figures of a training by epoch, all of a kind."""
    traces = []
    for i, (name, values) in enumerate(series.items()):
        color = SERIES[i % len(SERIES)]
        clean = [number(value) for value in values]
        says = [f"<b>{label(name, 60)}</b><br>epoch {n}: {value:.4g}" for n, value in enumerate(values)]
        line = {"color": color, "width": 2}
        trace = {"x": list(range(len(values))), "y": clean, "hovertext": says, "line": line}
        traces.append(trace_json(name, type="scatter", mode="lines" if len(values) > 1 else "markers", **trace))
    across = axis_json("epoch", nticks=6, rangemode="tozero")
    reached = [value for values in series.values() for value in values if isfinite(value)]
    is_log = bool(reached) and is_wide(reached)  # a loss falls fast at first: the rest of it would be a flat line
    scale = {**log_ticks(min(reached), max(reached)), "tickformat": "~g"} if is_log else {"nticks": 6}
    return figure_json(traces, across, axis_json(kind, **scale), height=260)


def _by_number(name: str) -> tuple[int, str]:
    """Class numbers in their order, and names after them in theirs."""
    return (int(name), "") if name.isdecimal() else (10**9, name)
