"""All gates of a budget, and what they come to."""

from collections.abc import Sequence
from typing import Any

from pipeline.base.data.strict import Strict
from pipeline.gate.accuracy import drop, flips, retention, score
from pipeline.gate.budget import Budget, Choice
from pipeline.gate.classes import worst_class
from pipeline.gate.expected import Expected
from pipeline.gate.finding import Gate
from pipeline.gate.measured import exact, parity
from pipeline.gate.rows import gate_of, rows_keep
from pipeline.records.parts.gates import GateRecord, Verdict
from pipeline.records.record import Record

NAMES = {"size": "size_bytes"}
"""Of the gates that are not called like their limit."""


def judge(budget: Budget, record: Record, expected: Expected | None = None) -> list[GateRecord]:
    """One verdict a limit. Sizes and counts are exact; accuracy and latency are decided by their intervals.

    A run that did not come to its end has no last model: every limit is skipped.

    Args:
        budget: the limits.
        record: of the run; the scores in its folder are read where a limit is told of the committed model's.
        expected: the committed model; needed where a limit is told of it.
    """
    if record.failure or not record.final:
        return unfinished(budget, record)
    return _counted(budget, _gates(budget, record, expected))


def unfinished(budget: Budget, record: Record) -> list[GateRecord]:
    """A skipped gate for each limit, of a run that ended early."""
    ended = f"the run ended in {record.failure.where}" if record.failure else "the run has no model yet"
    fix = f"Mend what ended it, then `shrink resume {record.folder}`"
    gates = [Gate(NAMES.get(name, name), _number(limit)) for name, limit in _limits(budget).items()]
    gates += [gate_of(limit) for limits in budget.on_rows.values() for limit in limits]
    return _counted(budget, [gate.skipped(ended, fix) for gate in gates])


def judged(record: Record, gates: list[GateRecord]) -> Record:
    """The record with these gates in place of those that it has, their verdict, and their warnings."""
    earlier = warnings_of(record.gates)
    warnings = [text for text in record.warnings if text not in earlier]
    changes = {"gates": gates, "verdict": verdict(gates), "warnings": [*warnings, *warnings_of(gates)]}
    return record.model_copy(update=changes)


def verdict(gates: Sequence[GateRecord]) -> Verdict | None:
    """Fail if any counts as failed, else inconclusive if any does, else pass; None without a budget."""
    counted = {gate.counts_as or ("inconclusive" if gate.verdict == "skipped" else gate.verdict) for gate in gates}
    order: tuple[Verdict, ...] = ("fail", "inconclusive")
    return next((v for v in order if v in counted), "pass" if counted else None)


def warnings_of(gates: Sequence[GateRecord]) -> list[str]:
    """What stands in the record's warnings: the gates that the budget lets pass with a warning."""
    return [f"budget: {gate.verdict}: {gate.message}" for gate in gates if gate.counts_as == "warn"]


def has_limits(budget: Budget) -> bool:
    """Whether there is anything to judge."""
    return bool(_limits(budget) or budget.on_rows)


def _gates(budget: Budget, record: Record, expected: Expected | None) -> list[GateRecord]:
    sizes = (("size_bytes", budget.size), ("params", budget.params), ("macs", budget.macs))
    gates = [
        retention(budget.retention, record, expected) if budget.retention else None,
        score(budget.score, record) if budget.score else None,
        drop(budget.drop, record) if budget.drop else None,
        flips(budget.flips, record) if budget.flips else None,
        worst_class(budget.worst_class, record) if budget.worst_class else None,
        parity(budget.parity, record) if budget.parity else None,
        *(exact(name, limit, record, expected) for name, limit in sizes if limit),
        *(rows_keep(limit, record) for limits in budget.on_rows.values() for limit in limits),
    ]
    return [gate for gate in gates if gate]


def _counted(budget: Budget, gates: Sequence[GateRecord]) -> list[GateRecord]:
    return [gate.model_copy(update={"counts_as": _counts(budget, gate)}) for gate in gates]


def _limits(budget: Budget) -> dict[str, Strict]:
    return {name: limit for name in Budget.model_fields if isinstance(limit := getattr(budget, name), Strict)}


def _number(limit: Strict) -> float:
    bounds: dict[str, Any] = limit.model_dump()
    return float(bounds["min"] if "min" in bounds else bounds["max"])


def _counts(budget: Budget, gate: GateRecord) -> Choice:
    if gate.verdict == "skipped":
        return budget.on_skipped
    return budget.on_inconclusive if gate.verdict == "inconclusive" else gate.verdict
