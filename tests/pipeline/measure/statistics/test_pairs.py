"""The table of pairs, and the test of its flips against a published figure and scipy's."""

import numpy as np
import pytest
from scipy import stats

from pipeline.measure.statistics.pairs import Pairs, mcnemar_p, pairs

CAVO = Pairs(both=59, gained=6, lost=16, neither=80)


def test_mcnemar_gives_the_published_exact_p() -> None:
    assert mcnemar_p(CAVO) == pytest.approx(0.052479, abs=5e-7)
    assert mcnemar_p(Pairs(10, 0, 0, 0)) == 1.0


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (1, 1), (2, 3), (7, 0), (13, 29), (400, 350), (30, 31)])
def test_mcnemar_is_the_exact_binomial_test_of_a_fair_coin(gained: int, lost: int) -> None:
    expected = stats.binomtest(lost, gained + lost, 0.5).pvalue
    assert mcnemar_p(Pairs(50, gained, lost, 3)) == pytest.approx(expected, rel=1e-12)


def test_pairs_counts_each_cell() -> None:
    model, baseline = np.array([1, 1, 1, 0, 0, 0.0]), np.array([1, 1, 0, 1, 0, 0.0])
    assert pairs(model, baseline) == Pairs(both=2, gained=1, lost=1, neither=2)
