"""Predictions, scores and metrics: one evaluation path for every form of a model, a score per example."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.base.estimate import Estimate
from pipeline.base.targets.labelling import IGNORED, Labelling
from pipeline.errors import NotFinite, StageError, blame
from pipeline.measure.statistics.pairs import Scores
from pipeline.measure.statistics.resamples import percentile_interval, resampled
from pipeline.model import Model
from pipeline.task import Batch, Forward, Metric, Split, Task, kind

Advance = Callable[..., None]
Asked = tuple[Batch, Forward]
"""A batch, and what gives the outputs for it."""

BATCH_SIZE = 256
FILL = Task.fill
RESAMPLES, RESAMPLES_OF_ROWS = 200, 1000  # of a function, which may take long; of a `Metric`
LARGE = 500_000  # numbers in the rows of a `Metric`, above which it takes long too
PREFIX = "metric."  # of the metrics' names in a file


@dataclass(frozen=True)
class Evaluation:
    """A model's predictions (N, ...) and scores (N,) on a split, and metrics over the whole of it.

    `targets` (N, ...) are the classes of logits, -100 where none counts, and `validation_scores` (M,) are there where
    validation was looked at too.
    `batch` examples were predicted at a time; `other_scores` (M,) are of validation with `other_batch`, for a model
    whose answers depend on it.
    `resampled` has of each metric its value and those of resamples of the examples, the same for all models.
    """

    predictions: Tensor
    scores: Tensor
    resampled: dict[str, Scores] = field(default_factory=dict)
    targets: Tensor | None = None
    validation_scores: Tensor | None = None
    batch: int = BATCH_SIZE
    other_batch: int | None = None
    other_scores: Tensor | None = None

    @property
    def metrics(self) -> dict[str, Estimate]:
        """Each metric with its interval."""
        return {name: percentile_interval(values) for name, values in self.resampled.items()}

    def save(self, path: Path) -> None:
        """Keep it, so that any two models can be compared in pairs later."""
        tensors = {"predictions": self.predictions, "scores": self.scores, "targets": self.targets}
        tensors |= {"validation_scores": self.validation_scores, "other_scores": self.other_scores}
        tensors |= {"batches": torch.tensor([self.batch, self.other_batch or 0])}
        tensors |= {PREFIX + name: torch.from_numpy(values) for name, values in self.resampled.items()}
        save_file({name: value.contiguous() for name, value in tensors.items() if value is not None}, path)

    @classmethod
    def load(cls, path: Path) -> "Evaluation":
        """What `save` wrote; one of an earlier version has predictions and scores alone."""
        tensors = load_file(path)
        targets, on_validation = tensors.get("targets"), tensors.get("validation_scores")
        names = [name for name in tensors if name.startswith(PREFIX)]
        metrics = {name.removeprefix(PREFIX): tensors[name].numpy() for name in names}
        batch, other = tensors.get("batches", torch.tensor([BATCH_SIZE, 0])).tolist()
        rest = targets, on_validation, batch, other or None, tensors.get("other_scores")
        return cls(tensors["predictions"], tensors["scores"], metrics, *rest)


@dataclass(frozen=True)
class Scoring:
    """How a task turns what a model gives into predictions, scores and metrics; see `Task`.

    Args:
        decode, score, metrics, fill: the task's.
        labelling: the task's, where predictions are logits.
    """

    decode: Callable[[Forward, Any], Tensor]
    score: Callable[[Any, Any], Tensor]
    metrics: Mapping[str, Callable[[Any, Any], float]] = field(default_factory=dict)
    fill: int = FILL
    labelling: Labelling | None = None

    @classmethod
    def of(cls, task: Task) -> "Scoring":
        """Everything that a task says."""
        return cls(task.decode, task.score, task.metrics, task.fill, task.labelling if task.logits else None)


def evaluate(
    model: Model, split: Split, scoring: Scoring, *, advance: Advance = lambda steps: None, batch: int = BATCH_SIZE
) -> Evaluation:
    """Run a model over a split in order.

    The predictions of the whole split are held in memory, and where there are metrics the targets too.

    Args:
        model: either form.
        split: where batches are of different lengths, predictions and targets are joined with `fill` at their ends.
        scoring: what becomes of the model's outputs.
        advance: told of each batch.
        batch: examples at a time.

    Raises:
        StageError: predictions hold NaN, or the scores are not one finite number an example.
    """
    return evaluate_batches(asking(model, split, batch), scoring, advance)


def evaluate_batches(batches: Iterable[Asked], scoring: Scoring, advance: Advance = lambda steps: None) -> Evaluation:
    """The same of batches, in order, each with what answers it."""
    predictions, scores, targets, classes = [], [], [], list[Tensor | None]()
    for predicted, scored, target in _scored(batches, scoring, advance):
        predictions.append(predicted.cpu())
        scores.append(scored)
        classes.append(scoring.labelling.numbers(predicted.cpu(), target) if scoring.labelling else None)
        if scoring.metrics:  # else they are not needed all at once
            targets.append(target)
    known = [numbers for numbers in classes if numbers is not None]
    numbers = joined(known, IGNORED) if len(known) == len(classes) else None
    evaluation = Evaluation(joined(predictions, scoring.fill), torch.cat(scores), targets=numbers)
    values, whole = {}, joined(targets, scoring.fill).cpu() if scoring.metrics else evaluation.scores
    for name, function in scoring.metrics.items():
        with blame(StageError, f"the task's metric `{name}`"):
            values[name] = _resampled(function, evaluation.predictions, whole)
        if not np.isfinite(values[name][0]):
            raise StageError(f"the task's metric `{name}` is {values[name][0]}", expected="a finite number")
    return replace(evaluation, resampled=values)


def asking(model: Model, split: Split, size: int = BATCH_SIZE) -> Iterator[Asked]:
    """The batches of a split, each with the model that answers it."""
    return ((batch, model.predict) for batch in split.loader(size))


def _scored(
    batches: Iterable[Asked], scoring: Scoring, advance: Advance = lambda steps: None
) -> Iterator[tuple[Tensor, Tensor, Any]]:
    """Predictions, scores and targets of each batch, in order and checked."""
    for batch, forward in batches:
        with blame(StageError, "the task's decode or score"):
            predicted = scoring.decode(forward, batch.inputs)
        _check_predictions(predicted, len(batch.index))
        with blame(StageError, "the task's decode or score"):
            scored = scoring.score(predicted, batch.targets)
        _check_scores(scored, len(batch.index))
        yield predicted, scored.cpu().double(), batch.targets
        advance(1)


def joined(parts: Sequence[Tensor], fill: int = FILL) -> Tensor:
    """Tensors (B, ...) as one (N, ...), filled up at the ends of axes that differ in length.

    Raises:
        StageError: they differ in their number of axes, or `fill` is no number of their type.
    """
    if len({part.shape[1:] for part in parts}) == 1:
        return torch.cat(list(parts))
    if len({part.ndim for part in parts}) > 1:
        raise StageError(f"batches give {kind(parts[0])} and {kind(parts[-1])}", expected="the same number of axes")
    if int(torch.tensor(fill).to(parts[0].dtype)) != fill:
        problem = f"batches of {parts[0].dtype} differ in length and `fill` is {fill}"
        raise StageError(problem, expected="a number of that type", fix="Set `fill` in the Task, or give int64")
    longest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    tensor = parts[0].new_full((sum(map(len, parts)), *longest), fill)
    for part, place in zip(parts, torch.split(tensor, [len(part) for part in parts]), strict=True):
        place[tuple(map(slice, part.shape))] = part
    return tensor


def evaluate_task(
    model: Model, task: Task, split: Split, advance: Advance = lambda steps: None, batch: int = BATCH_SIZE
) -> Evaluation:
    """`evaluate` with everything that the task says."""
    return evaluate(model, split, Scoring.of(task), advance=advance, batch=batch)


def scores_on_validation(model: Model, task: Task, batch: int, advance: Advance) -> Tensor:
    """The scores (M,) on validation, so many examples at a time."""
    with blame(StageError, "validation"):
        return scores_of(asking(model, task.validation, batch), Scoring.of(task), advance)


def scores_of(batches: Iterable[Asked], scoring: Scoring, advance: Advance = lambda steps: None) -> Tensor:
    """The scores (N,) of batches alone; see `evaluate_batches`."""
    return torch.cat([scores for _, scores, _ in _scored(batches, scoring, advance)])


def mean_score(model: Model, split: Split, *, decode: Callable[..., Tensor], score: Callable[..., Tensor]) -> float:
    """The mean score on a split."""
    return float(scores_of(asking(model, split), Scoring(decode, score)).mean())


def _check_predictions(predicted: Any, size: int) -> None:
    if not isinstance(predicted, Tensor) or predicted.shape[:1] != (size,):
        raise StageError(f"decode gave {kind(predicted)}", expected=f"a tensor ({size}, ...), one an example")
    if predicted.is_floating_point() and not torch.isfinite(predicted).all():
        raise NotFinite("the model's predictions are not finite", expected="no NaN and no infinity")


def _check_scores(scored: Any, size: int) -> None:
    if not isinstance(scored, Tensor) or scored.shape != (size,) or not torch.isfinite(scored).all():
        raise StageError(f"score gave {kind(scored)}", expected=f"finite numbers of shape ({size},), one an example")


def _resampled(function: Callable[[Any, Any], float], predictions: Tensor, targets: Tensor) -> Scores:
    """A metric's value, and those of resamples."""
    if isinstance(function, Metric):
        metric, rows = function, function.rows(predictions, targets)
        count = RESAMPLES if rows.size > LARGE else RESAMPLES_OF_ROWS
        return resampled(lambda at: float(metric.figure(rows[at])), len(targets), count=count)

    def of(positions: NDArray[np.intp]) -> float:
        chosen = torch.from_numpy(positions)
        return float(function(predictions[chosen], targets[chosen]))

    return resampled(of, len(targets), count=RESAMPLES)
