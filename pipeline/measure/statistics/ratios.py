"""The mathematics of latency: ratios with their doubt.

A process has its own memory layout and its own luck, so samples inside one process are not independent: the unit of
comparison is the process, that is the median of one process in one round.

Reference: Tomas Kalibera and Richard Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013 (repeat at the
highest level that varies, here the process; report a ratio with its confidence interval). On the log scale the ratio
of two latencies is a difference, whose mean over rounds has Student's t interval (Student, "The Probable Error of a
Mean", Biometrika, 1908).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, inf, log, sqrt
from statistics import fmean
from typing import Literal

import numpy as np
import scipy
from pydantic import JsonValue

FEWEST_ROUNDS = 3
SAME = 0.05
"""Latencies that differ by less than this share are called the same."""

Verdict = Literal["faster", "slower", "same", "inconclusive"]


@dataclass(frozen=True)
class Ratio:
    """A ratio of latencies and its 95 % interval, which is None for fewer than three rounds."""

    value: float
    low: float | None
    high: float | None

    @property
    def json(self) -> dict[str, JsonValue]:
        """As it stands in the record."""
        return {"value": self.value, "low": self.low, "high": self.high}


def interval(logs: Sequence[float]) -> Ratio:
    """exp of the mean of log-ratios, one a round, with Student's 95 % interval.

    With n rounds, mean m and standard deviation s: exp(m -+ t(0.975, n - 1) * s / sqrt(n)).
    """
    n, mean = len(logs), fmean(logs)
    if n < FEWEST_ROUNDS:
        return Ratio(exp(mean), None, None)
    half = float(scipy.special.stdtrit(n - 1, 0.975)) * float(np.std(logs, ddof=1)) / n**0.5
    return Ratio(exp(mean), exp(mean - half), exp(mean + half))


def compare(model: Sequence[float], baseline: Sequence[float], again: Sequence[float]) -> tuple[Ratio, Ratio]:
    """(model / baseline, baseline / baseline): the second is the noise of this machine in the same rounds.

    Args:
        model, baseline, again: median latency of each round's process, in the same unit; the baseline ran twice a
            round, and the geometric mean of the two is what the model is compared with.
    """
    noise = [log(b / a) for a, b in zip(baseline, again, strict=True)]
    return interval([log(ratio) for ratio in by_round(model, baseline, again)]), interval(noise)


def by_round(model: Sequence[float], baseline: Sequence[float], again: Sequence[float]) -> list[float]:
    """The ratio of each round: the model over the geometric mean of the two baselines."""
    return [m / sqrt(a * b) for m, a, b in zip(model, baseline, again, strict=True)]


def judge(ratio: Ratio, noise: Ratio) -> Verdict:
    """What the ratio allows to say.

    faster or slower: its interval lies beyond 1 and beyond the noise, taken as a band about 1 that reaches as far to
    both sides (in logs) as the noise interval reaches to its farther one. same: the interval lies within `SAME`
    of 1. inconclusive: all else.
    """
    if ratio.low is None or ratio.high is None or noise.low is None or noise.high is None:
        return "inconclusive"
    band = max(noise.high, 1 / noise.low if noise.low else inf)
    if ratio.high * band < 1:
        return "faster"
    if ratio.low > band:
        return "slower"
    return "same" if ratio.low > 1 - SAME and ratio.high < 1 + SAME else "inconclusive"


def beside(own: Sequence[float], other: Sequence[float], noises: Iterable[Ratio]) -> tuple[Ratio, Verdict]:
    """own / other, which share what drifts, and what holds against all of the noises.

    Args:
        own, other: median latency of each round's process, in the same rounds and the same unit.
        noises: of what they ran in, each of a baseline with itself in those rounds.
    """
    ratio = interval([log(a / b) for a, b in zip(own, other, strict=True)])
    verdicts = {judge(ratio, noise) for noise in noises}
    return ratio, verdicts.pop() if len(verdicts) == 1 else "inconclusive"
