"""Runtimes beside one another: each against the first, in the same rounds."""

from collections.abc import Mapping, Sequence
from math import log
from statistics import median
from typing import Any, NamedTuple

from pipeline.measure.statistics.ratios import Ratio, beside, interval
from stages.benchmark.timing.rounds import AGAIN, BASELINE, Participant, Timed

Processes = Mapping[Participant, Timed]


class First(NamedTuple):
    """The runtime that others are compared with, and what its processes told."""

    runtime: str
    processes: Processes


def to_first(own: Processes, first: First, name: str) -> dict[str, Any] | None:
    """A model's latency as a ratio to its own in the first runtime, with a verdict; None where one was not timed.

    Each runtime has a noise, of its baseline with itself. What is said holds against both.

    Args:
        own: what the processes in a runtime told.
        first: the same of the first one, in the same rounds.
        name: of the model.
    """
    member = Participant("model", name)
    ours, theirs = _medians(own, member), _medians(first.processes, member)
    if not ours or len(ours) != len(theirs):
        return None
    ratio, verdict = beside(ours, theirs, map(_noise, (own, first.processes)))
    return {"runtime": first.runtime, **ratio.json, "verdict": verdict}


def _noise(processes: Processes) -> Ratio:
    """Of the baseline with itself; without one, nothing is known of it."""
    baseline, again = (_medians(processes, member) for member in (BASELINE, AGAIN))
    if not baseline or len(baseline) != len(again):
        return Ratio(1.0, None, None)
    return interval([log(b / a) for a, b in zip(baseline, again, strict=True)])


def _medians(processes: Processes, member: Participant) -> Sequence[float]:
    return [median(samples) for samples in processes[member].processes] if member in processes else []
