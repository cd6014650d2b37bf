"""Records made by hand: every field has a value, and a test gives those that it is about."""

from typing import Any

from pipeline.measure.statistics.pairs import Pairs
from pipeline.measure.statistics.shares import difference_interval, ratio_interval
from pipeline.records.parts.gates import GateRecord
from pipeline.records.parts.models import Flips, ModelRecord
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Record

MODEL: dict[str, Any] = {
    "size_bytes": 1000, "payload_bytes": 900, "params": 200, "macs": 3000, "score": 0.9, "test_samples": 400,
    "seconds": 1.0, "finished": "2026-01-01T00:00:05.000+00:00", "form": "onnx", "folder": "model",
    "file": "model.onnx", "digest": "d", "predictions": "predictions.safetensors",
}  # fmt: skip


def model(**changes: Any) -> ModelRecord:
    return ModelRecord(**{**MODEL, **changes})


def stage(position: int = 0, name: str = "prune.channels", **changes: Any) -> StageRecord:
    return StageRecord(**{**MODEL, "position": position, "name": name, "settings": {}, **changes})


def record(*stages: StageRecord, **changes: Any) -> Record:
    """A run of these stages, without a baseline."""
    rest: dict[str, Any] = {"run": "r", "folder": "/none", "started": "2026-01-01T10:00:00+00:00", "config": {}}
    return Record(**{**rest, "seed": 0, "data": {}, "environment": {}, "stages": list(stages), **changes})


def packing(count: int = 12, **changes: Any) -> dict[str, Any]:
    """The report of a stage that packed so many tensors in three ways, and the graph."""
    ways = [("int4", 8), ("codebook", 7), ("float32", 1)]
    tensors = [
        {"name": f"layers.{i}.weight", "encoding": encoding, "elements": 9000 // (i + 1), "before": size,
         "bytes": size // ratio}
        for i in range(count) for encoding, ratio in [ways[i % 3]] for size in [4 * (9000 // (i + 1))]
    ]  # fmt: skip
    sizes = [sum(tensor[key] for tensor in tensors) + 3100 for key in ("before", "bytes")]
    return {
        "bytes": {"before": sizes[0], "after": sizes[1]},
        "graph_bytes": 3100,
        "tensors": tensors,
        "load_ms": {"before": 3.21, "after": 9.14},
        "peak_bytes": {"before": 80_000_000, "after": 92_000_000},
        **changes,
    }


def gate(verdict: str = "pass", **changes: Any) -> GateRecord:
    limit: dict[str, Any] = {"name": "retention", "limit": 0.95, "value": 0.9, "message": "retention is 0.9"}
    return GateRecord(**{**limit, "verdict": verdict, **changes})


def paired(table: Pairs, **changes: Any) -> dict[str, Any]:
    """What is measured of a model with this table of pairs against the baseline."""
    size = sum(table)
    return {
        "score": (table.both + table.gained) / size,
        "test_samples": size,
        "retention": ratio_interval(table),
        "drop": difference_interval(table),
        "flips": Flips(lost=table.lost, gained=table.gained),
        **changes,
    }
