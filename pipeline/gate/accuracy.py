"""Gates on accuracy: retention, score, drop and flips, each decided by its interval."""

import numpy as np

from pipeline.base.estimate import Estimate
from pipeline.gate.budget import Budget, LeastKept, LeastScore, MostShare
from pipeline.gate.expected import Expected, host_of, scores_of
from pipeline.gate.finding import (
    Gate,
    at_least,
    at_most,
    costliest,
    interval,
    last,
    samples_fix,
    samples_text,
    table_of,
)
from pipeline.measure.statistics.means import drop as drop_of
from pipeline.measure.statistics.means import mean
from pipeline.measure.statistics.means import retention as retention_of
from pipeline.measure.statistics.pairs import Pairs, Scores, is_right_or_wrong, pairs
from pipeline.measure.statistics.samples import Decided, kept, samples_by_reach, samples_to_decide, undropped, unlost
from pipeline.measure.statistics.shares import share_interval
from pipeline.records.parts.gates import GateRecord
from pipeline.records.record import Record

ALONE = "there is nothing to compare the baseline with"
NO_SCORES = "the run folder has no predictions of the last model any more"
GRADED = "an example is lost where scores are right or wrong, and these are graded"
NO_RATIO = "Limit `drop` instead: a difference means something there"
SAME = "Run it on the test split of the committed model, or commit this one: shrink expect RUN"
ELSEWHERE = " (measured on another kind of processor, whose int8 arithmetic differs)"


def retention(limit: LeastKept, record: Record, expected: Expected | None) -> GateRecord:
    """Share of the score of the baseline, or of the committed model, that the last model keeps."""
    if limit.of == "expected":
        return _of_expected(limit.min, record, expected)
    model, gate = last(record), Gate("retention", limit.min, of="baseline")
    if model.retention is None:
        return gate.skipped(model.retention_reason or ALONE, NO_RATIO)
    text = f"retention is {interval(model.retention)}, the limit {limit.min:g}"
    return _decided(gate, model.retention, text, record, kept, table_of(model.score, model.test_samples, model.flips))


def score(limit: LeastScore, record: Record) -> GateRecord:
    """The last model's score itself, in its unit."""
    gate, scores = Gate("score", limit.min), scores_of(record, last(record))
    if scores is None:
        return gate.skipped(NO_SCORES, "Run it again")
    estimate = mean(scores, record.seed)
    return _decided(gate, estimate, f"score is {interval(estimate)}, the limit {limit.min:g}", record, kept, None)


def drop(limit: MostShare, record: Record) -> GateRecord:
    """How far the last model's score is below the baseline's."""
    model, gate = last(record), Gate("drop", limit.max)
    if model.drop is None:
        return gate.skipped(ALONE, "Add stages")
    text = f"drop is {interval(model.drop)}, the limit {limit.max:g}"
    return _decided(gate, model.drop, text, record, undropped, table_of(model.score, model.test_samples, model.flips))


def flips(limit: MostShare, record: Record) -> GateRecord:
    """Share of the test examples that the baseline has right and the last model wrong, with its exact interval."""
    model, gate = last(record), Gate("flips", limit.max)
    if model.flips is None:
        fix = "Score each example 0 or 1, or limit `drop` instead"
        return gate.skipped(GRADED if model.drop else ALONE, fix)
    share = share_interval(model.flips.lost, model.test_samples)
    counted = f"{model.flips.lost:,} of {model.test_samples:,} test examples lost"
    text = f"flips are {interval(share)} ({counted}), the limit {limit.max:g}"
    return _decided(gate, share, text, record, unlost, table_of(model.score, model.test_samples, model.flips))


def keeps(
    budget: Budget, model: Scores, baseline: Scores | None, committed: Scores | None = None, seed: int = 0
) -> bool | None:
    """Whether scores keep the limits on retention, score and drop with their whole intervals.

    None where there are none, or none that can be looked at, for want of what they are told of.

    Args:
        budget: with the limits.
        model, baseline, committed: scores (N,) on the same test examples; see `Expected` for the committed model's.
        seed: of the bootstrap.
    """
    verdicts = []
    if limit := budget.retention:
        is_of_committed = limit.of == "expected"
        reference = committed if is_of_committed else baseline
        is_paired = reference is not None and len(reference) == len(model)
        share = (
            None
            if reference is None or not is_paired
            else _retention(model, reference, seed, of_committed=is_of_committed)
        )
        verdicts += [at_least(share, limit.min)] if share else []
    if budget.score:
        verdicts.append(at_least(mean(model, seed), budget.score.min))
    if budget.drop and baseline is not None:
        verdicts.append(at_most(drop_of(model, baseline, seed), budget.drop.max))
    return all(verdict == "pass" for verdict in verdicts) if verdicts else None


def _retention(model: Scores, other: Scores, seed: int, *, of_committed: bool) -> Estimate | None:
    if of_committed and not is_right_or_wrong(model, other):
        model = model.astype(np.float32).astype(np.float64)  # as theirs are kept, so that the same model keeps all
    return retention_of(model, other, seed)


def _decided(
    gate: Gate, estimate: Estimate, text: str, record: Record, figure: Decided, table: Pairs | None
) -> GateRecord:
    """The verdict on an upper limit, or on a lower one where the figure is `kept`."""
    limit, least, size = gate.limit, figure is kept, last(record).test_samples
    verdict = at_least(estimate, limit) if least else at_most(estimate, limit)
    fix, needed = costliest(record) if verdict == "fail" else "", None
    if verdict == "inconclusive":
        bound = limit if least else -limit
        needed = samples_by_reach(estimate, limit, size) if table is None else samples_to_decide(table, bound, figure)
        text += samples_text(needed, size)
        fix = samples_fix(needed, estimate.value > limit if least else estimate.value < limit, costliest(record))
    return gate.decided(verdict, estimate, text, fix, needed)


def _of_expected(limit: float, record: Record, expected: Expected | None) -> GateRecord:
    """Retention of the committed model's score, paired over the same test examples."""
    pairing, gate = _paired(record, expected), Gate("retention", limit, of="expected")
    if isinstance(pairing, str):
        return gate.skipped(pairing, SAME)
    ours, theirs = pairing
    share = _retention(ours, theirs, record.seed, of_committed=True)
    if share is None:
        return gate.skipped("scores are not all above zero", NO_RATIO)
    text = f"retention is {interval(share)} of the committed model's score, the limit {limit:g}"
    text += ELSEWHERE if expected and expected.host != host_of(record) else ""
    return _decided(gate, share, text, record, kept, pairs(ours, theirs) if is_right_or_wrong(ours, theirs) else None)


def _paired(record: Record, expected: Expected | None) -> tuple[Scores, Scores] | str:
    """The test scores of the last model and of the committed one, or why they cannot be paired."""
    if expected is None:
        return "there is no committed model"
    digest = record.split_digests.get("test")
    if digest is None or expected.digests.get("test") != digest:
        return "the committed model was measured on other test examples"
    ours = scores_of(record, last(record))
    if ours is None:
        return NO_SCORES
    if expected.scores is None:
        return "the committed model has no test scores"
    theirs = expected.scores.scores()
    return (ours, theirs) if len(ours) == len(theirs) else "the committed model has another number of test scores"
