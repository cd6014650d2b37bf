"""How much the answers depend on each layer, drawn and as a table."""

from collections.abc import Sequence

from pipeline.records.record import Record
from pipeline.report.html.plots.charts import SERIES, axis_json, figure_json, log_ticks, trace_json
from pipeline.report.html.text import label
from pipeline.report.html.views import Cell, Figure, Json, Plot, Table
from pipeline.report.parts.layers import Layer, Sensitivity, kept_text, sensitivity, sensitivity_cells

MOST_LAYERS = 60


def sensitivity_figure(record: Record) -> Figure | None:
    """A mark for each layer and change, the layers that matter most at the top; None where that was not measured."""
    measured = sensitivity(record)
    if measured is None:
        return None
    words = "How far the answers are from what they were where one layer alone is changed; further left is better."
    if len(measured.layers) > MOST_LAYERS:
        words += f" Drawn are {MOST_LAYERS} of {len(measured.layers):,} layers; the table has all."
    columns = ["layer", "operator", "elements", *measured.changes]
    rows: list[Sequence[Cell]] = [[*sensitivity_cells(layer, measured.changes)] for layer in measured.worst_first]
    table = Table("Sensitivity of layers", columns, rows, frozenset({1, 2}))
    words = f"{words} {kept_text(record)}".rstrip()
    return Figure("sensitivity", "Sensitivity of layers", words, [Plot("", _drawn(measured))], table)


def _drawn(measured: Sensitivity) -> Json:
    layers = measured.worst_first[:MOST_LAYERS]
    values = [value for layer in layers for value in layer.effects.values() if value > 0]
    traces = [_marks(change, layers, i) for i, change in enumerate(measured.changes)]
    up = {"tickvals": list(range(len(layers))), "ticktext": [label(layer.layer, 24) for layer in layers]}
    up |= {"range": [len(layers) - 0.5, -0.5]}
    scale = log_ticks(min(values), max(values)) if values else {}
    return figure_json(traces, axis_json("divergence", **scale), up, height=110 + 24 * len(layers))


def _marks(change: str, layers: Sequence[Layer], i: int) -> Json:
    points = [(layer.effects.get(change, 0.0), place, layer) for place, layer in enumerate(layers)]
    shown = [(value, place, layer) for value, place, layer in points if value > 0]  # zero has no place on a log scale
    return trace_json(
        f"{change} bits" if change.isdigit() else change,
        type="scatter",
        mode="markers",
        x=[value for value, _, _ in shown],
        y=[place for _, place, _ in shown],
        marker={"color": SERIES[i % len(SERIES)], "size": 9},
        hovertext=[f"<b>{label(layer.layer, 60)}</b><br>{change}: {value:.3g}" for value, _, layer in shown],
    )
