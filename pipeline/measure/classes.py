"""What became of each class of a classification."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.measure.accuracy import Evaluation
from pipeline.measure.statistics import Scores, is_right_or_wrong, pairs, retention
from pipeline.records.record import ClassMeasure, Flips


def by_class(
    found: Evaluation, baseline: Evaluation | None, *, labels: Sequence[str], logits: bool, seed: int = 0
) -> list[ClassMeasure]:
    """The figures of each class that the split has examples of, in the order of the classes' numbers.

    Empty where there are no classes: see `tells_classes`.

    Args:
        found, baseline: evaluated on the same examples; None for the baseline itself.
        labels: names of the classes by number; a number without one is its own name.
        logits: whether predictions are logits.
        seed: of the bootstrap.
    """
    evaluations = [found, *([baseline] if baseline else [])]
    if found.targets is None or not all(tells_classes(one, logits) for one in evaluations):
        return []
    numbers, ours = found.targets.numpy(), found.scores.numpy()
    theirs = baseline.scores.numpy() if baseline else None
    return [
        _measured(label(number, labels), numbers == number, ours, theirs, seed)
        for number in np.unique(numbers).tolist()
    ]


def tells_classes(found: Evaluation, logits: bool) -> bool:
    """Whether predictions are logits (N, classes), targets are numbers of these classes, scores are right or wrong."""
    if not logits or found.targets is None or found.predictions.ndim != 2:
        return False
    inside = (found.targets >= 0) & (found.targets < found.predictions.shape[1])
    return bool(inside.all()) and is_right_or_wrong(found.scores.numpy())


def absent(found: Evaluation, labels: Sequence[str], logits: bool) -> list[str]:
    """The classes that the split has no example of, in order; see `tells_classes`."""
    if found.targets is None or not tells_classes(found, logits):
        return []
    present = set(found.targets.tolist())
    return [label(number, labels) for number in range(found.predictions.shape[1]) if number not in present]


def few(names: Sequence[str]) -> str:
    """At most five of the names, and how many more there are."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def label(number: int, labels: Sequence[str]) -> str:
    """The name of a class, or its number as text."""
    return str(labels[number]) if number < len(labels) else str(number)


def _measured(name: str, at: NDArray[np.bool_], ours: Scores, theirs: Scores | None, seed: int) -> ClassMeasure:
    """The figures of the examples at these places."""
    class_measure = ClassMeasure(label=name, support=int(at.sum()), score=float(ours[at].mean()))
    if theirs is None:
        return class_measure
    table = pairs(ours[at], theirs[at])
    retention_estimate = retention(ours[at], theirs[at], seed)
    return class_measure.model_copy(
        update={"retention": retention_estimate, "flips": Flips(lost=table.lost, gained=table.gained)}
    )
