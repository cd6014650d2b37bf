"""What a file is made of: its bytes, by layer and by encoding, and its layers that saturate on other CPUs.

Nothing is shown where the record and its files do not say.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.base.formatting import bytes_text, interval_text
from pipeline.measure.isa.telling import target_text
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import StageRecord
from pipeline.records.parts.targets import SaturatingLayer, TargetRecord
from pipeline.records.record import Record
from pipeline.report.html.plots.charts import SERIES, axis_json, figure_json, log_ticks
from pipeline.report.html.plots.treemap import Part, treemap
from pipeline.report.html.text import label
from pipeline.report.html.views import Cell, Figure, Json, Plot, Table
from pipeline.report.parts.layers import Layer, Sensitivity, kept_text, sensitivity, sensitivity_cells
from pipeline.report.parts.packing import COLUMNS, GRAPH, PackedTensor, by_encoding, cost_text, packing, packing_cells

LOG = logging.getLogger("shrinkline")
MOST_ROWS = 500
MOST_LAYERS = 60


def bytes_by_layer(record: Record) -> list[Figure]:
    """Where the bytes are, in the baseline's file and in the last model's."""
    folder = Path(record.folder)
    files = {"baseline": record.baseline, "final": record.final if record.stages else None}
    parts_by_file: dict[str, tuple[ModelRecord, list[Part]]] = {}
    for key, model in files.items():
        if model and (parts := _layers(folder / model.file)):
            rest = model.size_bytes - sum(size for _, _, size in parts)
            parts += [(GRAPH, GRAPH, rest)] if rest > 0 else []
            parts_by_file[key] = model, sorted(parts, key=lambda part: -part[2])
    types = [*sorted({kind for _, parts in parts_by_file.values() for _, kind, _ in parts if kind != GRAPH}), GRAPH]
    return [_bytes_figure(key, model, parts, types) for key, (model, parts) in parts_by_file.items()]


def bytes_by_encoding(record: Record) -> tuple[Figure | None, Table | None]:
    """Where the bytes of a packed file are, by how its tensors are written, and the sums; None where none is packed."""
    packed = packing(record)
    encodings = by_encoding(packed) if packed else []
    whole = sum(encoded.after for encoded in encodings)
    if packed is None or not whole:
        return None, None
    parts: list[Part] = [(tensor.name, tensor.encoding, tensor.bytes) for tensor in packed.tensors if tensor.bytes]
    parts += [(encoded.name, encoded.name, encoded.after) for encoded in encodings if not encoded.tensors]
    parts.sort(key=lambda part: -part[2])
    areas = treemap(parts, [encoded.name for encoded in encodings], grouped=True)
    total = f"{bytes_text(packed.bytes.after)}, before packing {bytes_text(packed.bytes.before)}"
    words = f"The packed file: {total}. Colours are encodings, areas are bytes. {cost_text(packed)}".rstrip()
    sums = Table("Sums by encoding", COLUMNS, [packing_cells(encoded) for encoded in encodings])
    largest = sorted(packed.tensors, key=lambda tensor: -tensor.bytes)[:MOST_ROWS]
    rows = [_tensor_cells(tensor, whole) for tensor in largest]
    table = Table(
        "Bytes by tensor", ["tensor", "encoding", "elements", "before", "after", "share"], rows, frozenset({1})
    )
    return Figure("bytes-encoding", "Bytes by encoding", words, [], table, areas=areas), sums


def elsewhere(record: Record) -> dict[str, Any]:
    """What files with integers answer on the CPUs of `target:`, and which layers of the last such file saturate."""
    stages = [(stage, stage.target) for stage in record.stages if stage.changed and stage.target]
    sentences = [f"{stage.name}: {target_text(target)}." for stage, target in stages]
    rows = [_there_cells(stage, target) for stage, target in stages if not target.reason]
    columns = ["stage", "score here", "score there", "retention there [95 %]", "lost", "gained", "decisions changed"]
    last = stages[-1][1] if stages else None
    examples = f"{last.layer_examples:,} " if last and last.layer_examples else ""
    words = (
        f"Counted on {examples}examples of validation: the share of pairs of products that saturate, what that takes "
        "off the sums, as a share of these, and what would change where the layer alone were exact."
    )
    layers = [_layer_cells(layer) for layer in (last.layers if last else [])[:MOST_ROWS]]
    titles = ["layer", "operator", "weight", "saturated", "error of sums", "decisions changed", "score gained"]
    return {
        "sentences": sentences,
        "table": Table("On the CPUs that it is for", columns, rows) if rows else None,
        "words": words if layers else "",
        "layers": Table("Layers whose sums saturate", titles, layers, frozenset({1, 2})) if layers else None,
    }


def _there_cells(stage: StageRecord, target: TargetRecord) -> list[Cell]:
    flips = [f"{target.flips.lost:,}", f"{target.flips.gained:,}"] if target.flips else ["-", "-"]
    changed = "-" if target.changed is None else f"{target.changed:.2%}"
    return [stage.name, f"{stage.score:.4f}", f"{target.score:.4f}", interval_text(target.retention), *flips, changed]


def _layer_cells(layer: SaturatingLayer) -> list[Cell]:
    effect = ["-" if value is None else f"{value:.2%}" for value in (layer.changed,)]
    gain = "-" if layer.gain is None else f"{layer.gain:+.4f}"
    size = "x".join(map(str, layer.shape))
    place = f"{layer.place}. {layer.node}"
    return [place, layer.operator, size, f"{layer.saturated:.3%}", f"{layer.error:.2%}", *effect, gain]


def _tensor_cells(tensor: PackedTensor, whole: int) -> list[Cell]:
    counts = [f"{count:,}" for count in (tensor.elements, tensor.before, tensor.bytes)]
    return [tensor.name, tensor.encoding, *counts, f"{tensor.bytes / whole:.1%}"]


def _layers(path: Path) -> list[Part]:
    """Name, type and bytes of each layer of a file; empty where it is gone or no ONNX file any more."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    from pipeline.measure.size import layers

    try:
        return [(part.name, part.dtype, part.bytes) for part in layers(path)] if path.exists() else []
    except (DecodeError, OSError):
        LOG.warning("%s cannot be read, so the report does not show where its bytes are", path)
        return []


def _bytes_figure(key: str, model: ModelRecord, parts: Sequence[Part], types: Sequence[str]) -> Figure:
    name = "baseline" if key == "baseline" else "last model"
    rows: list[Sequence[Cell]] = [
        [part, kind, f"{size:,}", f"{size / model.size_bytes:.1%}"] for part, kind, size in parts[:MOST_ROWS]
    ]
    by_type = {kind: sum(size for _, k, size in parts if k == kind) for kind in types}
    breakdown = ", ".join(f"{kind} {bytes_text(size)}" for kind, size in by_type.items() if size)
    words = f"The {name}: {bytes_text(model.size_bytes)} ({breakdown}). Colours are types, areas are bytes."
    table = Table(f"Bytes of the {name}", ["layer", "type", "bytes", "share"], rows, frozenset({1}))
    areas = treemap(parts, types)
    return Figure(f"bytes-{key}", f"Bytes by layer of the {name}", words, [], table, areas=areas)


def sensitivity_figure(record: Record) -> Figure | None:
    """A mark for each layer and change, the layers that matter most at the top; None where that was not measured."""
    measured = sensitivity(record)
    if measured is None:
        return None
    words = "How far the answers are from what they were where one layer alone is changed; further left is better."
    if len(measured.layers) > MOST_LAYERS:
        words += f" Drawn are {MOST_LAYERS} of {len(measured.layers):,} layers; the table has all."
    columns = ["layer", "operator", "elements", *measured.changes]
    rows: list[Sequence[Cell]] = [[*sensitivity_cells(layer)] for layer in measured.worst_first]
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
    points = [(layer.effects[change], place, layer) for place, layer in enumerate(layers)]
    shown = [(value, place, layer) for value, place, layer in points if value > 0]  # zero has no place on a log scale
    return {
        "type": "scatter",
        "mode": "markers",
        "name": change,
        "x": [value for value, _, _ in shown],
        "y": [place for _, place, _ in shown],
        "marker": {"color": SERIES[i % len(SERIES)], "size": 9},
        "hoverinfo": "text",
        "hovertext": [f"<b>{label(layer.layer, 60)}</b><br>{change}: {value:.3g}" for value, _, layer in shown],
    }
