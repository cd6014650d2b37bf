"""Where the bytes of a file are, by layer and by encoding; nothing where the record and its files do not say."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.formatting import bytes_text
from pipeline.records.parts.models import ModelRecord
from pipeline.records.record import Record
from pipeline.report.html.plots.treemap import Part, treemap
from pipeline.report.html.views import Cell, Figure, Table
from pipeline.report.parts.packing import COLUMNS, GRAPH, PackedTensor, by_encoding, cost_text, packing, packing_cells

LOG = logging.getLogger("shrinkline")
MOST_ROWS = 500


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
