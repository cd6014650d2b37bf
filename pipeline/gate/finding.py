"""What gates have in common: how a verdict is reached and put into words."""

from dataclasses import dataclass
from typing import Literal

from pipeline.base.estimate import Estimate
from pipeline.measure.statistics.pairs import Pairs
from pipeline.measure.statistics.samples import POWER
from pipeline.records.parts.gates import GateRecord, GateVerdict, Verdict
from pipeline.records.parts.models import Flips, ModelRecord
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Record

Of = Literal["baseline", "expected"]

CASES = f"{POWER * 10:.0f} of 10 cases"


def at_least(estimate: Estimate, limit: float) -> Verdict:
    """Pass where the whole interval keeps a lower limit, fail where none of it does."""
    return "pass" if estimate.low >= limit else "fail" if estimate.high < limit else "inconclusive"


def at_most(estimate: Estimate, limit: float) -> Verdict:
    """The same of an upper limit."""
    return "pass" if estimate.high <= limit else "fail" if estimate.low > limit else "inconclusive"


@dataclass(frozen=True)
class Gate:
    """A limit of the budget, as a record of its verdict tells of it.

    Args:
        name: the gate's.
        limit: absolute.
        of: what it was told as a share of.
        unit: of the limit, where it has one.
    """

    name: str
    limit: float
    of: Of | None = None
    unit: Literal["ms", "bytes"] | None = None

    def skipped(self, reason: str, fix: str) -> GateRecord:
        """That it could not be looked at, why, and how to have it looked at."""
        return self._record("skipped", f"{title(self.name)} is not judged: {reason.removesuffix('.')}", fix)

    def failed(self, message: str, fix: str) -> GateRecord:
        """That it is not kept, whatever the figure is."""
        return self._record("fail", message, fix)

    def exact(self, value: float, message: str, fix: str) -> GateRecord:
        """The verdict on a figure without doubt, which may be as high as the limit; `fix` is for a higher one."""
        verdict: Verdict = "pass" if value <= self.limit else "fail"
        return self._record(verdict, message, fix if verdict == "fail" else "", value=value)

    def decided(
        self, verdict: Verdict, estimate: Estimate, message: str, fix: str = "", needed: int | None = None
    ) -> GateRecord:
        """The verdict of an interval; `needed` is how many test examples would decide."""
        return self._record(verdict, message, fix, **estimate.model_dump(), samples_needed=needed)

    def _record(self, verdict: GateVerdict, message: str, fix: str, **figures: float | None) -> GateRecord:
        words = {"verdict": verdict, "message": message, "fix": " ".join(fix.split()), "of": self.of, "unit": self.unit}
        return GateRecord.model_validate({"name": self.name, "limit": self.limit, "value": None, **figures, **words})


def title(name: str) -> str:
    """A gate's name in a sentence."""
    kind, _, rest = name.partition(".")
    words = {"worst_class": "the worst class", "parity": "export parity"}.get(kind, kind)
    return f"{words} ({rest.replace('.', ', ')})" if rest else words


def interval(estimate: Estimate) -> str:
    """0.970 [0.949, 0.990]."""
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def last(record: Record) -> ModelRecord:
    """The last model. Raises ValueError where there is none; `judge` has looked for it."""
    if record.final is None:
        raise ValueError("the record has no model")
    return record.final


def table_of(score: float, size: int, flips: Flips | None) -> Pairs | None:
    """The table of pairs against the baseline; None for the baseline, and where scores are not right or wrong."""
    if flips is None or not size:
        return None
    right = round(score * size)
    return Pairs(right - flips.gained, flips.gained, flips.lost, size - right - flips.lost)


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
    models = [record.baseline, *record.stages]
    steps = zip(models, record.stages, strict=False)
    losses = [(before.score - stage.score, stage) for before, stage in steps if before]
    lost, costly = max(losses, key=lambda pair: pair[0], default=(0.0, None))
    if costly is None or lost <= 0:
        return "No stage lost any score against the model before it"
    points = all(0 <= model.score <= 1 for model in models if model)
    amount = f"{100 * lost:.1f} points of score" if points else f"{lost:.4g} of score"
    return f"{place(costly)} cost most, {amount}: make it milder, or give it more training"
