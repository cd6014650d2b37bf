"""Budget -> verdict: pass, fail or inconclusive, never a guess."""

from math import ceil

from pipeline.config import Budget
from pipeline.record import GateRecord, Measure, Verdict
from pipeline.statistics import Estimate


def judge(budget: Budget, found: Measure) -> list[GateRecord]:
    """One verdict a limit. Sizes and counts are exact; retention is decided by its interval."""
    gates = []
    if budget.retention:
        gates.append(_retention(budget.retention.min, found))
    exact = {"size_bytes": budget.size, "params": budget.params, "macs": budget.macs}
    for name, limit in exact.items():
        if limit:
            value = getattr(found, name)
            verdict: Verdict = "pass" if value <= limit.max else "fail"
            text = f"{name} is {value:,}, the limit {limit.max:,}"
            gates.append(GateRecord(name=name, limit=limit.max, value=value, verdict=verdict, message=text))
    return gates


def verdict(gates: list[GateRecord]) -> Verdict | None:
    """Fail if any failed, else inconclusive if any is, else pass; None without a budget."""
    verdicts = {gate.verdict for gate in gates}
    order: tuple[Verdict, ...] = ("fail", "inconclusive", "pass")
    return next((v for v in order if v in verdicts), None)


def _retention(limit: float, found: Measure) -> GateRecord:
    kept = found.retention
    if kept is None:
        text = f"retention is not defined: {found.retention_reason}"
        return GateRecord(name="retention", limit=limit, value=None, verdict="inconclusive", message=text)
    decided: Verdict = "pass" if kept.low >= limit else "fail" if kept.high < limit else "inconclusive"
    text = f"retention is {kept.value:.3f} [{kept.low:.3f}, {kept.high:.3f}], the limit {limit:g}"
    if decided == "inconclusive":
        text += _samples(kept, limit, found.test_samples)
    return GateRecord(
        name="retention", limit=limit, value=kept.value, low=kept.low, high=kept.high, verdict=decided, message=text
    )


def _samples(kept: Estimate, limit: float, size: int) -> str:
    """How many examples would decide: the interval narrows with the square root of their number."""
    margin = kept.value - limit
    reach = kept.value - kept.low if margin > 0 else kept.high - kept.value
    if abs(margin) < 1e-6:
        return "; the figure is the limit itself, so no number of examples decides"
    return f"; about {ceil(size * (reach / margin) ** 2):,} test examples would decide, there are {size:,}"
