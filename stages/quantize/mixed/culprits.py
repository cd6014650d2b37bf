"""Which of some parts account for a loss: groups are undone together, and halved where that helps."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipeline.context import Preview
from pipeline.errors import ConfigError


class Culprit(NamedTuple):
    """A part, and by how much the loss is less where it alone is undone beside those before it."""

    part: str
    gain: float


def expect_validation(preview: Preview) -> None:
    """Refuse an empty validation split, on which nothing could be lost."""
    if not len(preview.validation):
        raise ConfigError("the validation split is empty", expected="examples on which answers are compared")


def culprits(
    parts: Sequence[str], whole: float, loss: Callable[[frozenset[str]], float], share: float
) -> list[Culprit]:
    """The parts that account for a share of the loss each, the most first.

    A group whose undoing gains less than the share is not looked into, so that one culprit among n takes about
    2 log2(n) trials.

    Args:
        parts: their names.
        whole: what is lost where nothing is undone, 0 or more.
        loss: what is lost where some parts are undone.
        share: of the whole loss, that a culprit accounts for at least; 0 to 1.

    Reference: Andreas Zeller and Ralf Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE
    Transactions on Software Engineering 28, 2002, of which this is the case of causes that add up.
    """
    single: list[Culprit] = []

    def look(group: Sequence[str]) -> None:
        gain = whole - loss(frozenset(group))
        if gain < share * whole or gain <= 0:
            return
        if len(group) == 1:
            single.append(Culprit(group[0], gain))
            return
        split(group)

    def split(group: Sequence[str]) -> None:
        for half in (group[: len(group) // 2], group[len(group) // 2 :]):
            look(half)

    if len(parts) > 1:
        split(parts)
    elif whole > 0:
        single.extend(Culprit(part, whole) for part in parts)
    return sorted(single, key=lambda culprit: -culprit.gain)
