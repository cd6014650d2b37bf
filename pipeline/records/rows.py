"""What a row of a benchmark stage says: where it was measured, its figures with their doubt, and why one is missing."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from pipeline.base.estimate import Estimate
from pipeline.records.figures import number, runtime_of
from pipeline.records.parts.chosen import Chosen, Pair
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Record

Row = Mapping[str, Any]

DRAWN = ("distribution_ms", "round_ratios", "beside", "device")

OTHER = "other model"
"""The verdict of a score in a runtime whose answers are no longer the model's."""


def place_of(row: Row) -> str:
    """Where it was measured: onnxruntime, threads 1, batch 8."""
    return f"{runtime_of(row)}, threads {row.get('threads', '-')}, batch {row.get('batch', '-')}"


def pair_text(pair: Pair) -> str:
    """A pair in words: distill + quantize in ncnn, threads 1, batch 1."""
    place = place_of(pair.model_dump())
    return f"{pair.strategy} in {place}" if pair.strategy is not None else place


def chosen_text(chosen: Chosen) -> str:
    """What was chosen among runtimes, and why, in a line."""
    return f"{pair_text(chosen.pair)}, {chosen.reason}" if chosen.pair else chosen.reason


def chosen_tags(chosen: Chosen | None) -> dict[str, str]:
    """The pair and the reason by name; empty where none was asked for."""
    if chosen is None:
        return {}
    return {"chosen": pair_text(chosen.pair) if chosen.pair else "none", "chosen.why": chosen.reason}


def brief(row: Row) -> dict[str, JsonValue]:
    """A row without what is drawn of it alone, for a comparison's record."""
    return {key: value for key, value in row.items() if key not in DRAWN}


def estimate(value: object) -> Estimate | None:
    """A figure with its interval, which is the figure itself where there is none; None for what is no figure."""
    fields = value if isinstance(value, Mapping) else {"value": value}
    figure, low, high = (number(fields.get(name)) for name in ("value", "low", "high"))
    if figure is None:
        return None
    return Estimate(
        value=figure,
        low=low if high is not None and low is not None else figure,
        high=figure if low is None or high is None else high,
    )


def median_ms(row: Row) -> Estimate | None:
    """The median latency, with its interval over processes where there is one."""
    return estimate(row.get("median_ms")) or estimate(row.get("p50_ms"))


def round_ms(row: Row) -> list[float]:
    """The median latency of each round's process; empty where there is none, or one is no figure above 0."""
    values = row.get("round_ms")
    figures = [number(value) for value in values] if isinstance(values, list) else []
    return [figure for figure in figures if figure] if all(figure and figure > 0 for figure in figures) else []


def startup_ms(row: Row) -> Estimate | None:
    """From the start of a process to its first answer."""
    startup = row.get("startup")
    total = estimate(startup.get("total_s")) if isinstance(startup, Mapping) else None
    return total and Estimate(value=1e3 * total.value, low=1e3 * total.low, high=1e3 * total.high)


def peak_bytes(row: Row) -> Estimate | None:
    """What a process held at most."""
    memory = row.get("memory")
    return estimate(memory.get("peak_bytes")) if isinstance(memory, Mapping) else None


def score_of(row: Row) -> Mapping[str, Any]:
    """The score of the model in the runtime; empty where there is none."""
    score = row.get("score")
    return score if isinstance(score, Mapping) else {}


def is_other_model(row: Row) -> bool:
    """Whether the model is another one in this runtime, so that no other figure of the row counts."""
    return score_of(row).get("verdict") == OTHER


def reason_of(row: Row, key: str) -> str:
    """Why a figure is missing, as the stage says it; empty where it does not."""
    reasons = row.get("reasons")
    text = row.get("skipped") or (reasons.get(key) if isinstance(reasons, Mapping) else None)
    return str(text or "")


def changed_after(record: Record, stage: StageRecord, exported: bool = True) -> StageRecord | None:
    """The first stage after one that changed the model; `exported` says whether another form of it counts too."""
    later = [other for other in record.stages if other.position > stage.position and other.changed]
    return next((other for other in later if exported or "parity" not in other.reports), None)


def rows_of_last(record: Record) -> Iterator[dict[str, Any]]:
    """The rows that are of the last model, whichever form it had when it was timed."""
    for stage in record.stages:
        if changed_after(record, stage, exported=False) is None:
            yield from stage.latency
