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


def bench(runtime: str = "onnxruntime", **changes: Any) -> dict[str, Any]:
    """A row of a benchmark stage as one is written, of one thread and batch 1.

    Args:
        runtime: its name.
        changes: fields; `median` in ms and `startup` in seconds as (value, low, high), `peak` in bytes.
    """
    median, startup, peak = (changes.pop(name, None) for name in ("median", "startup", "peak"))
    median, startup = median or (2.0, 1.9, 2.1), startup or (0.3, 0.28, 0.32)
    if isinstance(startup, tuple):
        startup = {"imports_s": 0.1, "load_s": 0.1, "first_s": 0.1, "total_s": interval(startup), "processes": 10}
    return {
        "runtime": runtime, "threads": 1, "batch": 1, "rounds": 5, "execution_provider": "CPU", "version": "1.0",
        "median_ms": interval(median), "p50_ms": median[0], "p90_ms": 1.2 * median[0], "p99_ms": None,
        "ratio": {**interval((0.5, 0.48, 0.52)), "verdict": "faster"}, "noise": interval((1.0, 0.98, 1.02)),
        "baseline_p50_ms": 2 * median[0], "startup": startup, "size_bytes": 9_000,
        "memory": {"peak_bytes": peak or 80_000_000, "above_imports_bytes": 9_000_000}, "reasons": {}, **changes,
    }  # fmt: skip


def interval(figures: Any) -> dict[str, float]:
    """(value, low, high) as it stands in a record."""
    return dict(zip(("value", "low", "high"), figures, strict=True))
