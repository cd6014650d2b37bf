"""Mean scores of a model and its baseline on the same examples, and what is between them."""

from collections.abc import Callable

import numpy as np
import scipy

from pipeline.base.estimate import Estimate
from pipeline.measure.statistics.pairs import Scores, is_right_or_wrong, pairs
from pipeline.measure.statistics.shares import difference_interval, ratio_interval, share_interval

RESAMPLES = 2000


def mean(scores: Scores, seed: int = 0) -> Estimate:
    """Mean of scores (N,), with a 95 % interval: exact where each is 0 or 1."""
    if is_right_or_wrong(scores, scores):
        return share_interval(float(scores.sum()), len(scores))
    return Estimate(**_limits(lambda values, axis=-1: values.mean(axis), (scores,), seed))


def retention(model: Scores, baseline: Scores, seed: int = 0) -> Estimate | None:
    """Mean score of the model over that of the baseline, with a paired 95 % interval.

    None where the baseline's mean is not above zero or a score is below it, and where so few of its scores are above
    zero that a resample has none of them: a ratio means nothing there.
    """
    if baseline.mean() <= 0 or min(model.min(), baseline.min()) < 0:
        return None
    if is_right_or_wrong(model, baseline):
        return ratio_interval(pairs(model, baseline))
    with np.errstate(divide="ignore", invalid="ignore"):
        limits = _limits(lambda a, b, axis=-1: a.mean(axis) / b.mean(axis), (model, baseline), seed)
    return Estimate(**limits) if np.isfinite(list(limits.values())).all() else None


def drop(model: Scores, baseline: Scores, seed: int = 0) -> Estimate:
    """Mean score of the baseline minus that of the model, with a paired 95 % interval; below zero is a gain."""
    if is_right_or_wrong(model, baseline):
        return difference_interval(pairs(model, baseline))
    return Estimate(**_limits(lambda a, b, axis=-1: (b - a).mean(axis), (model, baseline), seed))


def _limits(figure: Callable[..., Scores], data: tuple[Scores, ...], seed: int) -> dict[str, float]:
    """Percentile bootstrap over examples, drawn in pairs (Efron 1979)."""
    result = scipy.stats.bootstrap(
        data, figure, paired=True, vectorized=True, n_resamples=RESAMPLES, batch=50, method="percentile", rng=seed
    )
    interval = result.confidence_interval
    return {"value": float(figure(*data)), "low": float(interval.low), "high": float(interval.high)}
