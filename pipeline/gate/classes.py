"""The gate on the worst class: every class has to keep its share."""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from pipeline.base.estimate import Estimate
from pipeline.gate.budget import Least
from pipeline.gate.finding import Gate, costliest, interval, last, samples_fix, samples_text, table_of
from pipeline.measure.statistics.pairs import Pairs
from pipeline.measure.statistics.samples import POWER, kept, samples_to_decide
from pipeline.measure.statistics.shares import LEVEL, ratio_interval
from pipeline.records.parts.gates import GateRecord
from pipeline.records.parts.models import ClassMeasure
from pipeline.records.record import Record

NONE = "there are no figures by class"
FIX = "It takes integer class numbers as targets, logits, and scores that are right or wrong; else take it out"


class _Class(NamedTuple):
    label: str
    table: Pairs
    support: int
    usual: Estimate
    """Its interval by itself."""
    wide: Estimate
    """Its interval among so many classes."""


def worst_class(limit: Least, record: Record) -> GateRecord:
    """Whether every class keeps its share of the baseline's score in it.

    It passes when the lower end of every class clears the limit: all have to, so that no correction for their number
    is due (an intersection-union test). It fails when the upper end of some class does not, at a level that allows
    for looking at all of them. A class of which the baseline has no example right has nothing to lose.

    Reference:
        Berger: Multiparameter hypothesis testing and acceptance sampling, Technometrics 24, 1982.
        Dunn: Multiple comparisons among means, Journal of the American Statistical Association 56, 1961 (Bonferroni).
    """
    classes, gate = _classes(last(record).classes), Gate("worst_class", limit.min)
    if not classes:
        return gate.skipped(NONE, FIX)
    worst = min(classes, key=lambda one: one.usual.low)
    if worst.usual.low >= limit.min:
        return gate.decided("pass", worst.usual, _text(worst.label, worst.usual, limit.min))
    surest = min(classes, key=lambda one: one.wide.high)
    if surest.wide.high < limit.min:
        text = _text(surest.label, surest.wide, limit.min)
        text += f"; the interval allows for {len(classes)} classes" if len(classes) > 1 else ""
        fix = f"Give class {surest.label} more training examples or more weight. {costliest(record)}"
        return gate.decided("fail", surest.wide, text, fix)
    return _open(gate, classes, record)


def _classes(measured: Sequence[ClassMeasure]) -> list[_Class]:
    """Those of which the baseline has examples right."""
    pairs = [(one, table_of(one.score, one.support, one.flips)) for one in measured]
    tables = [(one, table) for one, table in pairs if table and table.both + table.lost]
    level = _level(len(tables))
    return [
        _Class(one.label, table, one.support, ratio_interval(table), ratio_interval(table, level))
        for one, table in tables
    ]


def _level(classes: int) -> float:
    return 1 - (1 - LEVEL) / max(classes, 1)


def _open(gate: Gate, classes: list[_Class], record: Record) -> GateRecord:
    """The gate where neither is sure, with the test examples that it would take."""
    size, limit = last(record).test_samples, gate.limit
    unclear = [one for one in classes if one.usual.low < limit]
    worst = min(unclear, key=lambda one: one.usual.value)
    passes = worst.usual.value > limit
    if passes:  # all have to pass, so that each may fail less often
        power = 1 - (1 - POWER) / len(unclear)
        each = [(_whole(one, size, limit, LEVEL, power), one) for one in unclear]
        needed, worst = max(each, key=lambda pair: pair[0] or inf)
    else:
        needed = _whole(worst, size, limit, _level(len(classes)), POWER)
    text = _text(worst.label, worst.usual, limit) + samples_text(needed, size)
    fix = f"{samples_fix(needed, passes, costliest(record))}; class {worst.label} has {worst.support:,} of {size:,}"
    return gate.decided("inconclusive", worst.usual, text, fix, needed)


def _whole(class_figures: _Class, size: int, limit: float, level: float, power: float) -> int | None:
    """Test examples of all classes at which there are enough of this one."""
    needed = samples_to_decide(class_figures.table, limit, kept, level=level, power=power)
    return None if needed is None else -(-needed * size // class_figures.support)


def _text(label: str, estimate: Estimate, limit: float) -> str:
    return f"the worst class, {label}, keeps {interval(estimate)}, the limit {limit:g}"
