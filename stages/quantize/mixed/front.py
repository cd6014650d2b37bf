"""From the smallest mixture of widths to the most accurate, one layer at a time."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """A width of a unit of layers.

    Args:
        width: bits, "ternary", a codebook, "fp16" or "fp32".
        size: bytes of its weights.
        effect: what it does to the answers; 0 for nothing.
    """

    width: Any
    size: float
    effect: float


Mixture = tuple[Choice, ...]


def front(choices: Sequence[Sequence[Choice]]) -> list[Mixture]:
    """Mixtures, a choice for each unit, each the next one's but for one unit that becomes larger and better.

    Where effects add up no mixture of as few bytes has less of them: of each unit the choices on the lower convex hull
    are taken, in the order of the effect that a byte saves.

    Args:
        choices: of each unit at least one.

    Reference: Yair Shoham and Allen Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE
    Transactions on Acoustics, Speech and Signal Processing 36, 1988.
    """
    hulls = [_hull(some) for some in choices]
    steps = [(_slope(a, b), unit, place) for unit, hull in enumerate(hulls) for place, (a, b) in _pairs(hull)]
    mixture = [hull[0] for hull in hulls]
    mixtures = [tuple(mixture)]
    for _, unit, place in sorted(steps, key=lambda step: (-step[0], step[1], step[2])):
        mixture[unit] = hulls[unit][place + 1]
        mixtures.append(tuple(mixture))
    return mixtures


def _hull(choices: Sequence[Choice]) -> list[Choice]:
    """Those, from the smallest on, that no two others beat together."""
    hull: list[Choice] = []
    for choice in sorted(choices, key=lambda one: (one.size, one.effect)):
        if hull and choice.effect >= hull[-1].effect:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], choice):
            hull.pop()
        hull.append(choice)
    return hull


def _pairs(hull: list[Choice]) -> list[tuple[int, tuple[Choice, Choice]]]:
    return list(enumerate(itertools.pairwise(hull)))


def _slope(one: Choice, other: Choice) -> float:
    """The effect that each byte more saves."""
    return (one.effect - other.effect) / max(other.size - one.size, 1e-9)
