"""Which numbers become zero: those of the lowest scores, among all, of each row, or of each few inputs."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from stages.prune.allocation.importance import lamp

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
"""True where a number becomes zero."""


class Pattern(NamedTuple):
    """So many of each few inputs that lie beside each other stay.

    Args:
        kept: from 1 on.
        of: more than that.
    """

    kept: int
    of: int

    @classmethod
    def of_text(cls, text: str) -> Self:
        """What `2:4` says. Raises ValueError for a text that is no pattern."""
        kept, _, of = text.partition(":")
        if not (kept.isdecimal() and of.isdecimal() and 0 < int(kept) < int(of)):
            problem = f"`{text}` is no pattern; expected how many weights stay of how many, as `2:4` or `1:4`"
            raise ValueError(problem)
        return cls(int(kept), int(of))

    @property
    def share(self) -> float:
        """Of the numbers that become zero."""
        return 1 - self.kept / self.of


Amount = float | Pattern
"""The share of zeros, or their pattern."""


def share_of(amount: Amount) -> float:
    """The share of zeros."""
    return amount.share if isinstance(amount, Pattern) else amount


def zeros_of(count: int, share: float) -> int:
    """How many of so many numbers become zero, to the nearest whole."""
    return int(count * share + 0.5)


def lowest(scores: Floats, count: int) -> Mask:
    """So many of the lowest scores; of equal ones the first."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(scores, axis=None, kind="stable")[:count]] = True
    return mask.reshape(scores.shape)


def lowest_of_rows(scores: Floats, share: float) -> Mask:
    """A share of the lowest scores of each row (rows, width); rows differ by one so that all together have it."""
    counts = np.diff([zeros_of(row * scores.shape[1], share) for row in range(len(scores) + 1)])
    mask: Mask = np.less(_ranks(scores), counts[:, None])
    return mask


def lowest_of_pattern(scores: Floats, pattern: Pattern) -> Mask:
    """The lowest scores (rows, width) of each few inputs, which divide the width."""
    mask: Mask = np.less(_ranks(scores.reshape(-1, pattern.of)), pattern.of - pattern.kept)
    return mask.reshape(scores.shape)


def lowest_of_layers(weights: Mapping[str, Floats], share: float) -> dict[str, Mask]:
    """A share of all weights together, by LAMP: squares over those of the weights of their layer that are no smaller.

    Reference: Jaeho Lee, Sejun Park, Sangwoo Mo, Sungsoo Ahn, Jinwoo Shin, "Layer-adaptive Sparsity for the
    Magnitude-based Pruning", 2021, arXiv:2010.07611, equation 4.
    """
    squares = [torch.from_numpy(own.reshape(-1) ** 2) for own in weights.values()]
    scores = torch.cat([lamp(own) for own in squares]).numpy()
    mask = lowest(scores, zeros_of(scores.size, share))
    parts = np.split(mask, np.cumsum([one.size for one in weights.values()])[:-1])
    return {name: part.reshape(one.shape) for (name, one), part in zip(weights.items(), parts, strict=True)}


def _ranks(scores: Floats) -> NDArray[np.int64]:
    return np.argsort(np.argsort(scores, axis=1, kind="stable"), axis=1, kind="stable")
