"""A record as flat names and numbers, for whoever draws or logs it."""

import json
from math import isfinite
from typing import Any

from pydantic import BaseModel

from pipeline.records.record import ModelRecord, Spread, StageRecord


def number(value: object) -> float | None:
    """A finite number, or None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and isfinite(value) else None  # type: ignore[arg-type]


def metrics(found: ModelRecord) -> dict[str, float]:
    """All numbers of a record's MEASURE, of its latencies and of its gain; intervals as `_low` and `_high`."""
    figures: dict[str, float] = {}
    for name in (*ModelRecord.model_fields, "seconds"):
        value = getattr(found, name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            figures[name] = value
        elif isinstance(value, BaseModel):
            _spread(figures, name, value)
    beside = {"metric": found.metrics, "metric_drop": found.metrics_drop, "metric_retention": found.metrics_retention}
    for kind, name, estimate in ((kind, *pair) for kind, by_name in beside.items() for pair in by_name.items()):
        _spread(figures, f"{kind}.{name}", estimate)
    for entry in getattr(found, "latency", []):
        kind = f"latency.{entry.get('runtime')}.threads{entry.get('threads')}.batch{entry.get('batch')}"
        flat = flatten(entry)
        numbers = {k: v for k, v in flat.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        figures |= {f"{kind}.{key}": float(value) for key, value in numbers.items()}
    return figures | (_gained(found) if isinstance(found, StageRecord) else {})


def points(figures: dict[str, float], step: int) -> list[tuple[str, float, int]]:
    """Figures at one step."""
    return [(name, value, step) for name, value in figures.items()]


def curves(found: ModelRecord) -> dict[str, list[float]]:
    """Reports that are lists of equal dictionaries of numbers, such as a training history: one curve a key."""
    result: dict[str, list[float]] = {}
    for report, rows in found.reports.items():
        if isinstance(rows, list) and rows and all(isinstance(r, dict) and "epoch" in r for r in rows):
            keys = [k for k in rows[0] if k != "epoch" and all(isinstance(r.get(k), int | float) for r in rows)]  # type: ignore[union-attr, arg-type]
            result |= {f"{report}.{key}": [float(r[key]) for r in rows] for key in keys}  # type: ignore[arg-type, index]
    return result


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON as one level with dotted keys."""
    if isinstance(value, dict) and value:
        return {k: v for key, inner in value.items() for k, v in flatten(inner, f"{prefix}.{key}".lstrip(".")).items()}
    if isinstance(value, list) and any(isinstance(v, dict) for v in value):
        return {k: v for i, inner in enumerate(value) for k, v in flatten(inner, f"{prefix}.{i}".lstrip(".")).items()}
    return {prefix: json.dumps(value) if isinstance(value, list | dict) else value} if prefix else {}


def _gained(record: StageRecord) -> dict[str, float]:
    """What distillation brought, and the scores over seeds; deviations only where there are several seeds."""
    figures: dict[str, float | None] = {}
    spreads: dict[str, Spread | None] = {"student_score": record.seeds}
    by_metric: dict[str, float] = {}
    if gain := record.gain:
        figures = {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high, "gain_deviation": gain.deviation}
        spreads |= {"student_score": gain.student, "control_score": gain.control}
        for name, estimate in gain.metrics.items():
            _spread(by_metric, f"gain.{name}", estimate)
    for name, spread in spreads.items():
        if spread:
            figures |= {name: spread.mean, f"{name}_deviation": spread.deviation}
    return {name: value for name, value in figures.items() if value is not None} | by_metric


def _spread(figures: dict[str, float], name: str, value: BaseModel) -> None:
    for key, number in value.model_dump().items():
        figures[name if key == "value" else f"{name}_{key}"] = number
