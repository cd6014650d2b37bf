"""Right-or-wrong scores of two models on the same examples: the 2x2 table, and whether its flips are chance."""

from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import NDArray

Scores = NDArray[np.float64]


class Pairs(NamedTuple):
    """Counts of paired right-or-wrong outcomes of a model and its baseline."""

    both: int
    gained: int  # the model alone is right
    lost: int  # the baseline alone is right
    neither: int


def is_right_or_wrong(*scores: Scores) -> bool:
    """Whether all scores are 0 or 1."""
    return all(bool(np.isin(s, (0.0, 1.0)).all()) for s in scores)


def pairs(model: Scores, baseline: Scores) -> Pairs:
    """The 2x2 table of two models' right-or-wrong scores (N,) on the same examples."""
    a, b = model > 0.5, baseline > 0.5
    return Pairs(int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()))


def mcnemar_p(table: Pairs) -> float:
    """Exact conditional McNemar test, two-sided: could the flips be a fair coin? (McNemar 1947)."""
    flips = table.gained + table.lost
    # What `stats.binomtest` gives for a fair coin; importing scipy.stats takes longer than all that a stored run does.
    return min(1.0, 2 * float(scipy.special.bdtr(min(table.gained, table.lost), flips, 0.5)))
