"""What a verdict promises, by simulation through the gate itself: few wrong passes, and passes where they are due."""

from math import sqrt
from typing import Any, NamedTuple

import numpy as np
import pytest

from pipeline.gate.budget import Budget
from pipeline.gate.judge import judge
from pipeline.measure.statistics.pairs import Pairs
from pipeline.measure.statistics.shares import difference_ends, ratio_ends, share_ends
from pipeline.records.parts.gates import GateRecord
from tests import records

DRAWS = 5000
POWER_DRAWS = 1000
ALLOWED = 0.025 + 2 * sqrt(0.025 * 0.975 / DRAWS)

EMPTY = records.record(baseline=records.model())


class Truth(NamedTuple):
    """Chances of an example, and what is then true of the model."""

    both: float
    gained: float
    lost: float
    neither: float

    @property
    def retention(self) -> float:
        return (self.both + self.gained) / (self.both + self.lost)

    @property
    def drop(self) -> float:
        return self.lost - self.gained


def truth(accuracy: float, flips: float, share_lost: float) -> Truth:
    """Of a baseline's accuracy, the share of examples that flip, and how many of these are lost."""
    lost = flips * share_lost
    return Truth(accuracy - lost, flips - lost, lost, 1 - accuracy - flips + lost)


def judged(limits: dict[str, Any], table: Pairs) -> dict[str, GateRecord]:
    """The gates on a model that was measured with this table, by name."""
    last = records.stage(**records.paired(table))
    gates = judge(Budget.model_validate(limits), EMPTY.model_copy(update={"stages": [last]}))
    return {gate.name: gate for gate in gates}


def test_of_models_just_at_the_limit_at_most_one_in_forty_passes() -> None:
    """Test sizes of 400 to 10,000, flips of 0 to 5 %, from losses alone to as many gains as losses."""
    draw = np.random.default_rng(5)
    sizes = np.exp(draw.uniform(np.log(400), np.log(10_000), DRAWS)).astype(int)
    flips = draw.uniform(0, 0.05, DRAWS) * (draw.uniform(size=DRAWS) > 0.05)
    truths = [
        truth(*drawn) for drawn in zip(draw.uniform(0.6, 0.95, DRAWS), flips, draw.uniform(0.5, 1, DRAWS), strict=True)
    ]
    tables = np.array([draw.multinomial(size, real) for size, real in zip(sizes, truths, strict=True)])
    both, gained, lost, _ = tables.T
    ends = {
        "retention": (ratio_ends(both, gained, lost), np.array([real.retention for real in truths])),
        "drop": (difference_ends(sizes, gained, lost), np.array([real.drop for real in truths])),
        "flips": (share_ends(lost, sizes), np.array([real.lost for real in truths])),
    }
    for name, ((low, high), limits) in ends.items():
        passed, failed = (low >= limits, high < limits) if name == "retention" else (high <= limits, low > limits)
        for wrong in (passed, failed):
            assert 0.005 < wrong.mean() <= ALLOWED, name  # one that is never wrong would never be sure
        for i in range(0, DRAWS, 25):  # the gate says what its interval says
            told = {name: {"min" if name == "retention" else "max": limits[i]}}
            expected = "pass" if passed[i] else "fail" if failed[i] else "inconclusive"
            assert judged(told, Pairs(*map(int, tables[i])))[name].verdict == expected


LIMITS = {"retention": {"min": 0.98}, "drop": {"max": 0.02}, "flips": {"max": 0.025}}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("seen", [Pairs(90, 0, 0, 10), Pairs(180, 0, 1, 19), Pairs(84, 1, 1, 14), Pairs(352, 4, 6, 38)])
def test_at_the_number_of_samples_that_the_gate_asks_for_nine_of_ten_pass(seen: Pairs, name: str) -> None:
    """A model that is as it looks on too few examples; then on as many as were asked for."""
    limits = {name: LIMITS[name]}
    asked = judged(limits, seen)[name]
    assert asked.verdict == "inconclusive"
    assert asked.samples_needed
    draws = np.random.default_rng(6).multinomial(asked.samples_needed, np.array(seen) / sum(seen), size=POWER_DRAWS)
    tables, counts = np.unique(draws, axis=0, return_counts=True)
    passed = [judged(limits, Pairs(*map(int, row)))[name].verdict == "pass" for row in tables]
    assert counts[passed].sum() / POWER_DRAWS >= 0.9 - 2 * sqrt(0.9 * 0.1 / POWER_DRAWS)
