"""Which epoch's weights a training keeps."""

from collections.abc import Sequence

import torch
from torch import Tensor


def is_as_good(scores: Tensor, best: Sequence[float]) -> bool:
    """Whether an epoch validates as well as the best one: its mean score is lower by one standard error at most.

    The best of many epochs is in part the luckiest, on a small split above all; a later one has learnt longer, from a
    lower rate. The standard error is that of a difference in pairs where there is none: of answers that are right or
    wrong, what is lost beyond what is gained may be the square root of how many changed.

    Args:
        scores: (N,) of the epoch, one a validation example.
        best: N, of the same examples in the epoch with the highest mean.

    References: Breiman, Friedman, Olshen and Stone: Classification and Regression Trees, 1984, section 3.4.3, the
    one-standard-error rule; McNemar: Note on the sampling error of the difference between correlated proportions, 1947.
    """
    differences = scores.double() - torch.tensor(best, dtype=torch.float64)
    return bool(differences.sum() >= -differences.square().sum().sqrt())
