"""What became of each class of a classification."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.base.targets.labelling import Labelling
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.statistics.means import retention
from pipeline.measure.statistics.pairs import Scores, is_right_or_wrong, pairs
from pipeline.records.parts.models import ClassMeasure, Flips


def by_class(
    model: Evaluation, baseline: Evaluation | None, *, labels: Sequence[str], logits: bool, seed: int = 0
) -> list[ClassMeasure]:
    """The figures of each class that the split has examples of, in the order of the classes' numbers.

    Empty where there are no classes: see `tells_classes`.

    Args:
        model, baseline: evaluated on the same examples; None for the baseline itself.
        labels: names of the classes by number; a number without one is its own name.
        logits: whether predictions are logits.
        seed: of the bootstrap.
    """
    evaluations = [model, *([baseline] if baseline else [])]
    if model.targets is None or not all(tells_classes(one, logits) for one in evaluations):
        return []
    numbers, scores = model.targets.numpy(), model.scores.numpy()
    baseline_scores = baseline.scores.numpy() if baseline else None
    return [
        _class_measure(class_name(number, labels), numbers == number, scores, baseline_scores, seed)
        for number in np.unique(numbers).tolist()
    ]


def tells_classes(model: Evaluation, logits: bool) -> bool:
    """Whether predictions are logits (N, classes), targets are numbers of these classes, scores are right or wrong."""
    if not logits or model.targets is None or model.predictions.ndim != 2 or model.targets.ndim != 1:
        return False
    inside = (model.targets >= 0) & (model.targets < model.predictions.shape[1])
    return bool(inside.all()) and is_right_or_wrong(model.scores.numpy())


def absent(model: Evaluation, labels: Sequence[str], logits: bool) -> list[str]:
    """The classes that the split has no example of, in order; see `tells_classes`."""
    if model.targets is None or not tells_classes(model, logits):
        return []
    present = set(model.targets.tolist())
    return [class_name(number, labels) for number in range(model.predictions.shape[1]) if number not in present]


def doubt(last: Evaluation, baseline: Evaluation, labelling: Labelling | None, labels: Sequence[str]) -> str:
    """Why a model that keeps its budget is hardly one to deploy: no score at all, or one answer to all; else empty.

    Args:
        last, baseline: evaluated on the same examples.
        labelling: the task's where predictions are logits.
        labels: names of the classes by number.
    """
    # A score that is never above zero, such as a squared error's negative, is best at 0.
    if not last.scores.any() and (labelling or bool((baseline.scores > 0).any())):
        return "its score is 0 on every test example"
    if labelling is None or last.targets is None:
        return ""
    counted = last.targets >= 0
    answers, targets = labelling.logits(last.predictions).argmax(-1)[counted], last.targets[counted]
    if not len(answers) or bool((answers != answers[0]).any()) or bool((targets == targets[0]).all()):
        return ""
    if labelling.kind == "multi_label":
        return f"it predicts {'every' if answers[0] else 'no'} label of every test example"
    return f"it predicts the class {class_name(int(answers[0]), labels)} for every test example"


def class_name(number: int, labels: Sequence[str]) -> str:
    """The name of a class, or its number as text."""
    return str(labels[number]) if number < len(labels) else str(number)


def _class_measure(
    name: str, at: NDArray[np.bool_], scores: Scores, baseline: Scores | None, seed: int
) -> ClassMeasure:
    """The figures of the examples at these places."""
    class_measure = ClassMeasure(label=name, support=int(at.sum()), score=float(scores[at].mean()))
    if baseline is None:
        return class_measure
    table, estimate = pairs(scores[at], baseline[at]), retention(scores[at], baseline[at], seed)
    return class_measure.model_copy(
        update={"retention": estimate, "flips": Flips(lost=table.lost, gained=table.gained)}
    )
