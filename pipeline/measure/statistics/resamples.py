"""Metrics over a whole set of examples: their doubt comes from resamples, which are the same for all models."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.base.estimate import Estimate
from pipeline.measure.statistics.pairs import Scores
from pipeline.measure.statistics.shares import LEVEL


def resampled(metric: Callable[[NDArray[np.intp]], float], size: int, *, count: int = 200, seed: int = 0) -> Scores:
    """A metric of all examples, and then of resamples of them: (1 + count,).

    The draw is the same for all models on the same split: element by element these compare them in pairs.

    Args:
        metric: gives the figure for the examples at these positions.
        size: number of examples.
        count: of resamples.
        seed: of the draw.

    Reference:
        Koehn: Statistical significance tests for machine translation evaluation, 2004.
    """
    draw = np.random.default_rng(seed)
    return np.array([metric(np.arange(size)), *(metric(draw.integers(0, size, size)) for _ in range(count))])


def percentile_interval(values: Scores) -> Estimate:
    """The first value, with the 95 % interval of the others; a resample that is NaN is left out."""
    low, high = np.nanpercentile(values[1:], [100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2])
    return Estimate(value=float(values[0]), low=float(low), high=float(high))


def metric_drop(model: Scores, baseline: Scores) -> Estimate:
    """A metric of the baseline minus that of the model, in pairs; each is of `resampled`. Below zero is a gain."""
    return percentile_interval(baseline - model)


def metric_retention(model: Scores, baseline: Scores) -> Estimate | None:
    """A metric of the model over that of the baseline, in pairs; each is of `resampled`.

    None where the baseline's is not above zero in all resamples: a ratio means nothing there.
    """
    return percentile_interval(model / baseline) if np.nanmin(baseline) > 0 else None
