"""The best pair of a model and a runtime among those that keep the limits; chosen on validation, never on test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.base.estimate import Estimate
from pipeline.gate.budget import Budget
from pipeline.gate.choice.apart import is_slower
from pipeline.gate.choice.choosing import KINDS, Choosing, Kind
from pipeline.gate.rows import limit_text, quantity
from pipeline.records.parts.chosen import Chosen, Pair
from pipeline.records.record import Record
from pipeline.records.rows import Row, estimate, is_other_model, pair_text, reason_of, rows_of_last, score_of

RETENTION = 0.95  # kept on validation, where neither `choose:` nor the budget says


@dataclass(frozen=True)
class _Candidate:
    """A row of a strategy, the figure that it is compared by, and what it does not keep."""

    row: Row
    pair: Pair
    figure: Estimate | None
    kept: float
    misses: list[str]


def choose(rows: Sequence[tuple[str | None, Row]], choosing: Choosing, budget: Budget) -> Chosen:
    """The pair that has least of what is asked for.

    Values decide what is kept, as with strategies; the gates of the budget say how sure that is. Of several batch sizes
    the least is looked at, unless `choosing` names one: latencies of other ones are of other work.

    Args:
        rows: each with the name of its strategy, None in a run.
        choosing: by what, among which rows, and how much is to be kept.
        budget: whose limits on rows are to be kept, and on retention where `choosing` has none.
    """
    kind, retention = KINDS[choosing.by], _retention(choosing, budget)
    fitting = [(name, row) for name, row in rows if choosing.is_of(row) and not row.get("skipped")]
    least = min((row["batch"] for _, row in fitting), default=None) if choosing.batch is None else choosing.batch
    candidates = [_candidate(name, row, kind, retention, budget) for name, row in fitting if row.get("batch") == least]
    base: dict[str, Any] = {"by": choosing.by, "retention": retention, "unit": kind.unit}
    if not candidates:
        where = f" of {choosing.place}" if choosing.place else ""
        return Chosen(**base, reason=f"there is no row{where} to choose among")
    keeping = [one for one in candidates if not one.misses]
    if not keeping:
        nearest = min(candidates, key=lambda one: (len(one.misses), -one.kept))
        reason = f"no pair keeps {_limits(retention, budget)}; {pair_text(nearest.pair)} comes nearest: "
        return Chosen(**base, nearest=nearest.pair, misses=nearest.misses, reason=reason + ", ".join(nearest.misses))
    best = min(keeping, key=_value)
    alike = [one.pair for one in keeping if one is not best and _are_alike(best, one, kind)]
    only = f"the only one of {len(candidates)} pairs" if len(keeping) == 1 else ""
    among = only or f"{kind.best} of the {len(keeping)} of {len(candidates)} pairs"
    reason = f"{among} that {'keeps' if only else 'keep'} {_limits(retention, budget)}"
    if alike:
        reason += f"; it cannot be told apart from {', '.join(map(pair_text, alike))}"
    figures = best.figure.model_dump() if best.figure else {}
    return Chosen(**base, pair=best.pair, **figures, alike=alike, reason=reason)


def chosen_in(record: Record, choosing: Choosing | None, budget: Budget) -> Chosen | None:
    """The runtime to take for the last model of a run; None where that is not asked for."""
    return choose([(None, row) for row in rows_of_last(record)], choosing, budget) if choosing else None


def _candidate(name: str | None, row: Row, kind: Kind, retention: float, budget: Budget) -> _Candidate:
    score, figure = score_of(row), kind.read(row)
    kept = estimate(score.get("validation_retention"))
    misses = ["it is another model there"] if is_other_model(row) else []
    if kept is None:
        misses.append(f"it has no retention on validation there{_because(row, 'score')}")
    elif kept.value < retention:
        misses.append(f"it keeps {kept.value:.4g} on validation, under {retention:g}")
    for limit in (limit for limits in budget.on_rows.values() for limit in limits if limit.is_of(row)):
        of = quantity(limit)
        own = of.read(row)
        if own is None:
            misses.append(f"its {of.name} is not known{_because(row, of.key)}")
        elif own.value > of.limit:
            misses.append(f"its {of.name} is {of.text(own)}, over {limit_text(of)}")
    if figure is None:
        misses.append(f"it has no figure of `{kind.key}`{_because(row, kind.key)}")
    fields = {key: row[key] for key in Pair.model_fields if key in row}
    return _Candidate(row, Pair(strategy=name, **fields), figure, kept.value if kept else 0.0, misses)


def _because(row: Row, key: str) -> str:
    reason = reason_of(row, key)
    return f" ({reason})" if reason else ""


def _retention(choosing: Choosing, budget: Budget) -> float:
    if choosing.retention is not None:
        return choosing.retention
    own = budget.retention
    return own.min if own and own.of == "baseline" else RETENTION


def _limits(retention: float, budget: Budget) -> str:
    return f"at least {retention:g} on validation" + (" and the limits" if budget.on_rows else "")


def _value(one: _Candidate) -> float:
    return one.figure.value if one.figure else float("inf")


def _are_alike(best: _Candidate, other: _Candidate, kind: Kind) -> bool:
    """Whether the other may be as good: by the rounds that they have in common, or where their intervals touch.

    Figures without doubt are alike only where they are equal.
    """
    slower = is_slower(other.row, best.row) if kind.in_rounds else None
    if slower is not None:
        return not slower
    return bool(best.figure and other.figure and other.figure.low <= best.figure.high)
