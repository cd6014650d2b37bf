"""The first of a row that holds, where all behind it are taken to hold too."""

from collections.abc import Callable


def smallest(count: int, holds: Callable[[int], bool]) -> int | None:
    """The place of the first that holds, by halving; None where the last does not.

    Args:
        count: how many there are.
        holds: tries the one at a place.
    """
    low, high = -1, count  # low does not hold, high does
    while high - low > 1:
        place = (low + high) // 2
        if holds(place):
            high = place
        else:
            low = place
    return high if high < count else None
