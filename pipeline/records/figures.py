"""A record as flat names and numbers, for whoever draws or logs it."""

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, TypeGuard

from pydantic import BaseModel

from pipeline.base.formatting import runtime_text
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import StageRecord


def number(value: object) -> float | None:
    """A finite number, or None for anything else."""
    return float(value) if _is_number(value) and isfinite(value) else None


def metrics(model: ModelRecord) -> dict[str, float]:
    """All numbers of a record's MEASURE, of its latencies and of its gain; intervals as `_low` and `_high`."""
    figures = numbers(model, (*ModelRecord.model_fields, "seconds"))
    beside = {"metric": model.metrics, "metric_drop": model.metrics_drop, "metric_retention": model.metrics_retention}
    for kind, name, estimate in ((kind, *pair) for kind, by_name in beside.items() for pair in by_name.items()):
        figures |= flat(f"{kind}.{name}", estimate)
    if not isinstance(model, StageRecord):
        return figures
    for entry in model.latency:
        kind = f"latency.{runtime_of(entry, '.')}.threads{entry.get('threads')}.batch{entry.get('batch')}"
        figures |= {f"{kind}.{key}": float(value) for key, value in flatten(entry).items() if _is_number(value)}
    return figures | _gained(model) | _there(model) | _kernels(model)


def runtime_of(row: Mapping[str, Any], between: str = " ") -> str:
    """Where a latency was measured, with the runtime's settings and host where it has some: openvino f32."""
    settings = row.get("settings")
    values = settings.values() if isinstance(settings, dict) else ()
    return runtime_text(str(row.get("runtime", "runtime")), values, row.get("host"), between)


def numbers(record: BaseModel, names: Iterable[str]) -> dict[str, float]:
    """Those fields of a record that are numbers, and what is flat of those that hold some, such as an interval."""
    figures: dict[str, float] = {}
    for name in names:
        value = getattr(record, name)
        if isinstance(value, BaseModel):
            figures |= flat(name, value)
        elif _is_number(value):
            figures[name] = value
    return figures


def flat(name: str, value: BaseModel) -> dict[str, float]:
    """An interval or the spread of scores by name, its ends as `_low` and `_high`, without what is not known."""
    entries = value.model_dump(exclude={"count"}).items()
    return {name if k in ("value", "mean") else f"{name}_{k}": v for k, v in entries if _is_number(v)}


def points(figures: dict[str, float], step: int) -> list[tuple[str, float, int]]:
    """Figures at one step."""
    return [(name, value, step) for name, value in figures.items()]


def curves(model: ModelRecord) -> dict[str, list[float]]:
    """Reports that are lists of equal dictionaries of numbers, such as a training history: one curve a key."""
    result: dict[str, list[float]] = {}
    for report, rows in model.reports.items():
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


def _gained(stage: StageRecord) -> dict[str, float]:
    """What distillation brought, and the scores over seeds; deviations only where there are several seeds."""
    figures = flat("student_score", stage.seeds) if stage.seeds else {}
    if gain := stage.gain:
        figures |= flat("gain", gain) | flat("student_score", gain.student) | flat("control_score", gain.control)
        for name, estimate in gain.metrics.items():
            figures |= flat(f"gain.{name}", estimate)
    return figures


def _there(stage: StageRecord) -> dict[str, float]:
    """What the file answers on another CPU."""
    if stage.target is None:
        return {}
    names = [name for name in type(stage.target).model_fields if name != "layer_examples"]
    there = numbers(stage.target, names)
    return {f"target.{stage.target.isa}.{name}": value for name, value in there.items()}


def _kernels(stage: StageRecord) -> dict[str, float]:
    """The share of MACs in integers, and the time over that of the file that came in."""
    if stage.kernels is None:
        return {}
    ratio = flat("latency_ratio_before", stage.kernels.ratio) if stage.kernels.ratio else {}
    return numbers(stage.kernels, ["integer_macs"]) | ratio


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
