"""What samples tell: percentiles that are null when samples are few, a median with its interval, a distribution.

Reference: MLCommons, "MLPerf Inference Rules", appendix "Early Stopping Criterion": how few samples tell a percentile
with a given confidence.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import median
from typing import Literal

import numpy as np
import scipy
from pydantic import JsonValue

PERCENTILES = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 99.9}
CONFIDENCE = 0.99
"""That a percentile by early stopping is no less than the true one."""
FEWEST_OF_A_MEDIAN = 6
"""Values that the interval of a median needs."""
MOST = 10**6
"""More samples than any percentile of these needs."""

Method = Literal["interpolated", "early stopping"]
"""How percentiles above the median are told; see `percentiles`."""


def percentiles(
    samples: Sequence[float], method: Method = "interpolated"
) -> tuple[dict[str, float | None], dict[str, str]]:
    """p50 to p99.9, and why one is None.

    Interpolated, a percentile p needs 10 / (1 - p) samples, so that ten of them lie beyond it. By early stopping those
    above the median are upper bounds, so that a figure of few samples is rather too high than too low; the median,
    which comparisons are made of, stays what it is.

    Args:
        samples: latencies in milliseconds, one or more; early stopping takes them for independent.
        method: how.
    """
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    ordered = sorted(samples)
    for name, percent in PERCENTILES.items():
        stops = method == "early stopping" and percent > 50
        place = over(len(ordered), percent / 100) if stops else 0
        needed = fewest(percent / 100) if stops else round(10 / (1 - percent / 100))
        if len(ordered) < needed:
            values[name] = None
            reasons[name] = f"{len(ordered)} samples; it needs {needed}"
        else:
            values[name] = ordered[-place] if stops else float(np.percentile(ordered, percent))
    return values, reasons


def over(count: int, share: float) -> int:
    """The t for which the t-th largest of so many samples is the percentile by early stopping; below 1 for too few.

    At most t of n independent samples lie over the true percentile p with the probability I_p(n - t, t + 1), of the
    regularized incomplete beta function I. It is the largest t for which that is at most 1 - `CONFIDENCE`: so rarely is
    the t-th largest under the percentile. The tolerance of the rules is 0, as theirs is.

    Args:
        count: of samples, n.
        share: of latencies that are under the percentile, p, such as 0.9.
    """
    return bisect_right(range(count), 1 - CONFIDENCE, key=lambda t: scipy.special.betainc(count - t, t + 1, share)) - 1


def fewest(share: float) -> int:
    """Samples that a percentile by early stopping needs, for the largest of them to be it: 64 for 0.9, 662 for 0.99."""
    return bisect_left(range(MOST), True, lo=2, key=lambda count: over(count, share) >= 1)


def median_interval(values: Sequence[float]) -> dict[str, JsonValue]:
    """The median, and between which two values that of all lies in 95 % of cases; they are None for fewer than 6.

    They are order statistics, so that nothing is taken for granted but that values are independent.
    """
    ordered = sorted(values)
    # How many at either end may be left out: the largest k with P(at most k - 1 of n below the median) <= 2.5 %.
    count = len(ordered)
    left = bisect_right(range(count), 0.025, key=lambda k: scipy.special.bdtr(k, count, 0.5))
    low, high = (ordered[left - 1], ordered[-left]) if left else (None, None)
    return {"value": median(ordered), "low": low, "high": high}


def quantiles(samples: Sequence[float]) -> list[float]:
    """The 101 quantiles from 0 to 100 %, to four significant digits: the shape of a distribution in little space."""
    return [float(f"{value:.4g}") for value in np.percentile(samples, range(101))]
