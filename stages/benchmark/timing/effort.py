"""How much is done for figures that can be believed: `effort` of benchmark.latency."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

STARTUPS = 10
"""Processes whose start-up counts, at least."""


@dataclass(frozen=True)
class Effort:
    """What MLPerf asks of a device that serves one request at a time, spread over fresh processes.

    Args:
        rounds: processes of each model, in which the noise of a machine shows.
        seconds: to sample, in all.
        samples: at least, in all; as few as tell the highest percentile that is asked for.
    """

    rounds: int
    seconds: float
    samples: int

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of benchmark.latency that it decides."""
        return {"rounds": self.rounds, "seconds": self.seconds / self.rounds, "iterations": None}

    @property
    def fewest(self) -> int:
        """Samples of a process, at least."""
        return ceil(self.samples / self.rounds)


EFFORTS = {"quick": Effort(rounds=5, seconds=2, samples=64), "full": Effort(rounds=10, seconds=10, samples=662)}
"""By name: `quick` tells p90, `full` p99."""


def decided(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those that their `effort` decides.

    Raises:
        ValueError: one of those is given too, as something else.
    """
    effort = EFFORTS[settings["effort"]]
    for name, value in effort.settings.items():
        if name in settings and settings[name] != value:
            raise ValueError(f"one of the two: `effort: {settings['effort']}` decides `{name}`")
    return {**settings, **effort.settings}
