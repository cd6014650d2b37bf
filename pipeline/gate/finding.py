"""What gates have in common: how a verdict is reached and put into words."""

from typing import Literal

from pipeline.base.estimate import Estimate
from pipeline.measure.statistics import POWER
from pipeline.records.record import GateRecord, GateVerdict, ModelRecord, Record, StageRecord, Verdict

Of = Literal["baseline", "expected"]

CASES = f"{POWER * 10:.0f} of 10 cases"


def at_least(found: Estimate, limit: float) -> Verdict:
    """Pass where the whole interval keeps a lower limit, fail where none of it does."""
    return "pass" if found.low >= limit else "fail" if found.high < limit else "inconclusive"


def at_most(found: Estimate, limit: float) -> Verdict:
    """The same of an upper limit."""
    return "pass" if found.high <= limit else "fail" if found.low > limit else "inconclusive"


def skipped(name: str, limit: float, reason: str, fix: str, *, of: Of | None = None) -> GateRecord:
    """A gate that could not be looked at, why, and how to have it looked at."""
    text = f"{title(name)} is not judged: {reason}"
    return GateRecord(name=name, limit=limit, value=None, verdict="skipped", message=text, fix=line(fix), of=of)


def gate(
    name: str,
    limit: float,
    found: Estimate,
    verdict: GateVerdict,
    message: str,
    *,
    fix: str = "",
    needed: int | None = None,
    of: Of | None = None,
) -> GateRecord:
    """A gate that an interval decides."""
    values = {"value": found.value, "low": found.low, "high": found.high}
    done = {"verdict": verdict, "message": message, "samples_needed": needed, "of": of}
    return GateRecord.model_validate({"name": name, "limit": limit, **values, **done, "fix": line(fix)})


def title(name: str) -> str:
    """A gate's name in a sentence."""
    return {"worst_class": "the worst class", "parity": "export parity"}.get(name, name)


def interval(found: Estimate) -> str:
    """0.970 [0.949, 0.990]."""
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def line(text: str) -> str:
    """One line."""
    return " ".join(text.split())


def last(record: Record) -> ModelRecord:
    """The last model. Raises ValueError where there is none; `judge` has looked for it."""
    if record.final is None:
        raise ValueError("the record has no model")
    return record.final


def samples_text(needed: int | None, size: int) -> str:
    """What is said of an inconclusive gate."""
    if needed is None:
        return "; the figure is too near the limit, so no number of examples decides"
    return f"; about {needed:,} test examples would decide, there are {size:,}"


def samples_fix(needed: int | None, passes: bool, costly: str) -> str:
    """What to do about an inconclusive gate.

    Args:
        needed: number of test examples that would decide.
        passes: whether a model like this one then passes; else it fails.
        costly: which stage cost most.
    """
    if needed is None:
        return f"More examples do not help. {costly}"
    if passes:
        return f"Test on about {needed:,} examples: a model as good as this one then passes in {CASES}"
    return f"On about {needed:,} test examples a model like this one fails in {CASES}. {costly}"


def place(stage: StageRecord) -> str:
    """stages[1] (prune.channels)."""
    return f"stages[{stage.position}] ({stage.name})"


def costliest(record: Record) -> str:
    """The stage with the largest loss of score against the model before it, and how much, in a sentence."""
    before = record.baseline
    losses: list[tuple[float, StageRecord]] = []
    scores = [model.score for model in (record.baseline, *record.stages) if model]
    points = all(0 <= score <= 1 for score in scores)
    for stage in record.stages:
        if before:
            losses.append((before.score - stage.score, stage))
        before = stage
    if not losses or max(losses, key=lambda pair: pair[0])[0] <= 0:
        return "No stage lost any score against the model before it"
    lost, stage = max(losses, key=lambda pair: pair[0])
    amount = f"{100 * lost:.1f} points of score" if points else f"{lost:.4g} of score"
    return f"{place(stage)} cost most, {amount}: make it milder, or give it more training"
