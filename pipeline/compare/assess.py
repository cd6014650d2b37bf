"""Records of runs -> the figures of each strategy, the front, the choice, and which strategies differ at all."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors.numpy import load_file

from pipeline.base.estimate import Estimate
from pipeline.gate.budget import Budget
from pipeline.gate.choice.choose import choose
from pipeline.gate.choice.choosing import Choosing
from pipeline.measure.gain import are_shares, lead, spread
from pipeline.measure.statistics.pairs import Scores
from pipeline.measure.strategies import pairwise, pareto
from pipeline.records.comparison import BASELINE, ComparisonRecord, StrategyRecord, Timing
from pipeline.records.folder import verified
from pipeline.records.parts.gates import Verdict
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import Spread
from pipeline.records.record import Failure, Record
from pipeline.records.rows import brief, rows_of_last

WORST_FIRST: tuple[Verdict | None, ...] = ("fail", "inconclusive", "pass", None)
RETENTION = 0.95  # of the chosen strategy, where neither `compare:` nor the budget says


def assess(
    record: ComparisonRecord,
    runs: Mapping[str, Sequence[Record]],
    failures: Mapping[str, Mapping[str, Failure]],
    least: str,
    retention: float | None,
    claims: Mapping[str, str],
    pair: tuple[Choosing, Budget] | None = None,
) -> None:
    """Fill a comparison's record.

    Args:
        record: with its axes; the rest is filled.
        runs: by strategy, one a seed.
        failures: by strategy and seed.
        least: the axis of which the chosen strategy has least.
        retention: of the baseline's validation score that the chosen one keeps.
        claims: what is promised of a strategy.
        pair: how to choose a strategy with a runtime, and the limits that it keeps; None where that is not asked for.
    """
    strategies = [strategy_record(name, own, failures.get(name, {}), claims.get(name)) for name, own in runs.items()]
    references = _references(runs)
    record.strategies = [baseline_record(references), *strategies] if references else strategies
    above = Path(record.folder).parent
    places = {run.run: os.path.relpath(run.folder, above) for group in runs.values() for run in group}
    for strategy in record.strategies:
        strategy.runs = [places[name] for name in strategy.runs]
    _choose(record, least, RETENTION if retention is None else retention)
    if pair:
        rows = [(strategy.name, row) for strategy in strategies for row in strategy.runtimes]
        record.chosen = choose(rows, *pair)
    paired = _paired(runs, record.warnings)
    record.tests = pairwise.pair_tests(paired, record.seeds[0] if record.seeds else 0)
    record.indistinguishable = pairwise.indistinguishable(record.tests)
    shares = are_shares(*(scores for group in paired.values() for scores in group))
    record.notes += pairwise.sentences(record.tests, record.test_samples, shares=shares)


def _choose(record: ComparisonRecord, least: str, retention: float) -> None:
    """Say which strategies are on the front, and which one to take."""
    usable = [strategy for strategy in record.strategies if strategy.size_bytes is not None]
    on_front = pareto.front_of(usable, record.axes)
    candidates = [strategy for strategy in usable if strategy.name != BASELINE]
    record.choice, record.choice_reason = pareto.choose(candidates, least, retention)
    if usable and not on_front:
        record.warnings.append(f"there is no front: no strategy has a figure of each of {', '.join(record.axes)}")
    for strategy in usable:
        strategy.on_front, strategy.chosen = strategy.name in on_front, strategy.name == record.choice


def strategy_record(
    name: str, runs: Sequence[Record], failures: Mapping[str, Failure], claim: str | None
) -> StrategyRecord:
    """One strategy over its seeds."""
    strategy = StrategyRecord(name=name, claim=claim, failures=dict(failures), runs=[r.run for r in runs])
    pairs = [(run, run.final) for run in runs if run.final and run.baseline]
    if not pairs:
        return strategy
    scores = [_scores(run, model) for run, model in pairs]
    baseline_scores = [_scores(run, run.baseline) for run, _ in pairs]
    changes: dict[str, Any] = _means([model for _, model in pairs])
    changes |= {"score": _spread(scores, "scores"), "validation_score": _spread(scores, "validation_scores")}
    for key, of in (("retention", "scores"), ("validation_retention", "validation_scores")):
        if all(of in one for one in (*scores, *baseline_scores)):
            changes[key] = pairwise.retention_over_seeds([s[of] for s in scores], [t[of] for t in baseline_scores])
    changes["drop"] = lead([t["scores"] for t in baseline_scores], [s["scores"] for s in scores])
    changes["latency"] = _first(run for run, _ in pairs)
    changes["runtimes"] = next((rows for run, _ in pairs if (rows := [*map(brief, rows_of_last(run))])), [])
    changes["seconds"] = fmean(sum(stage.seconds for stage in run.stages if not stage.latency) for run, _ in pairs)
    changes["verdicts"] = [run.verdict for run, _ in pairs]
    changes["gates"] = min((run for run, _ in pairs), key=lambda run: WORST_FIRST.index(run.verdict)).gates
    return strategy.model_copy(update=changes)


def baseline_record(runs: Sequence[Record]) -> StrategyRecord:
    """The reference, over its seeds: a run for each."""
    baselines = [run.baseline for run in runs if run.baseline]
    scores = [_scores(run, run.baseline) for run in runs]
    one = Estimate(value=1.0, low=1.0, high=1.0)
    changes: dict[str, Any] = _means(baselines)
    changes |= {"score": _spread(scores, "scores"), "validation_score": _spread(scores, "validation_scores")}
    changes |= {"retention": one, "validation_retention": one, "seconds": fmean(f.seconds for f in baselines)}
    changes["latency"] = [t.model_copy(update={**one.model_dump(), "verdict": "same"}) for t in _first(runs)]
    return StrategyRecord(name=BASELINE, runs=[run.run for run in runs]).model_copy(update=changes)


def timings(run: Record) -> list[Timing]:
    """The latency ratios of a run, of the last stage that measured any."""
    rows = run.latency_stage.latency if run.latency_stage else []
    return [timing for row in rows if (timing := _timing(row))]


def _timing(row: Mapping[str, Any]) -> Timing | None:
    """None of a row without a ratio, as a stage of the user's may have it."""
    ratio = row.get("ratio")
    with suppress(ValidationError):
        return Timing.model_validate({**row, **ratio}) if isinstance(ratio, dict) else None
    return None


def _first(runs: Iterable[Record]) -> list[Timing]:
    return next((ratios for ratios in map(timings, runs) if ratios), [])


def _means(models: Sequence[ModelRecord]) -> dict[str, float | None]:
    names = ("size_bytes", "payload_bytes", "params", "macs", "compression_ratio")
    figures = {name: [getattr(model, name) for model in models] for name in names}
    return {name: None if None in values else fmean(values) for name, values in figures.items()}


def _spread(scores: Sequence[Mapping[str, Scores]], name: str) -> Spread | None:
    return spread([float(one[name].mean()) for one in scores]) if all(name in one for one in scores) else None


def _scores(run: Record, model: ModelRecord | None) -> dict[str, Scores]:
    """Scores of a model of a run, (N,) each: `scores` on the test split, `validation_scores` where they are kept."""
    if model is None:
        return {}
    arrays = load_file(verified(run, model, "predictions"))
    return {name: arrays[name].astype(np.float64) for name in ("scores", "validation_scores") if name in arrays}


def _references(runs: Mapping[str, Sequence[Record]]) -> list[Record]:
    """A run for each seed, for its baseline."""
    by_seed = dict[int, Record]()
    for run in (run for strategy_runs in runs.values() for run in strategy_runs if run.baseline):
        by_seed.setdefault(run.seed, run)
    return [by_seed[seed] for seed in sorted(by_seed)]


def _paired(runs: Mapping[str, Sequence[Record]], warnings: list[str]) -> dict[str, list[Scores]]:
    """Test scores by strategy, over the seeds that all of them have; of one that never ended there are none."""
    by_strategy = {name: {run.seed: run for run in group} for name, group in runs.items() if group}
    if len(by_strategy) < 2:
        return {}
    common = sorted(set[int].intersection(*map(set, by_strategy.values())))
    if not common:
        warnings.append("no paired tests: there is no seed with which all strategies ended")
        return {}
    if any(len(by) > len(common) for by in by_strategy.values()):
        seeds = ", ".join(map(str, common))
        warnings.append(f"the paired tests are of the seeds with which all strategies ended: {seeds}")
    return {name: [_scores(by[seed], by[seed].final)["scores"] for seed in common] for name, by in by_strategy.items()}
