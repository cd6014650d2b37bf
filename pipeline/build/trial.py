"""A model tried on a task's telling examples: that outputs, loss, decode, score and metrics fit each other."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from pipeline.base.batches import Outputs, as_inputs
from pipeline.build.lengths import check_lengths
from pipeline.build.probe import SplitSummary, label_of
from pipeline.errors import ConfigError, blame
from pipeline.model import Model
from pipeline.task import Output, Task, cross_entropy, first_output, kind, scored

IGNORED = -100  # what torch's cross-entropy leaves out


def try_out(task: Task, model: Model, summaries: dict[str, SplitSummary]) -> list[str]:
    """Run model, loss, decode and score on the telling examples of each split, and the model on the longest too.

    Returns:
        Warnings.

    Raises:
        ConfigError: one of them raises, or gives another shape than it should, or the loss is not finite; batches are
            of other lengths, on an axis that the task's `axes` do not name.
    """
    class_count, highest = 0, -1
    for name, split in task.splits.items():
        extremes, ends = summaries[name].extremes, summaries[name].ends
        check_lengths(task, split, model, ends, f"task, {name} examples {list(ends)}")
        positions = extremes if split.collate else sorted({*extremes, *ends})
        where = f"task, {name} examples {positions}"
        with blame(ConfigError, where, fix="Look at the shapes and the range of the targets"):
            rows = [split[i] for i in positions]
            batch, targets = (split.collate or default_collate)(rows)
            inputs = as_inputs(batch)
            outputs = model.predict(inputs)
            class_count = _class_count(task, scored(outputs, task.output))
            labels = [label for _, target in rows if (label := label_of(target)) is not None]
            _check_range(task, class_count, labels)
            highest = max([highest, *labels])
            _check_repeats(outputs, model.predict(inputs), where)
            _check_loss(task.loss(outputs, targets), where)
            predictions = task.decode(model.predict, inputs)
            _check_predictions(predictions, task.logits, where)
            _check_labels(task, predictions)
            _check_scores(task.score(predictions, targets), len(rows), where)
            _try_metrics(task, predictions, targets, where)
    return [*_chosen_silently(task, outputs), *_never_occurring(task, class_count, highest)]


def _chosen_silently(task: Task, outputs: Outputs) -> list[str]:
    """A warning where the first of several outputs is scored because nobody said which."""
    first, *others = outputs
    if task.decode is not first_output or not others or first == "logits":
        return []
    return [
        f"task: of the outputs {', '.join(outputs)} the first one, `{first}`, is trained on and scored; set `output`"
    ]


def _check_repeats(once: Outputs, again: Outputs, where: str) -> None:
    differing = [name for name in once if not torch.equal(once[name], again[name]) and not once[name].isnan().any()]
    if differing:
        fix = "Draw at random in training only, such as F.dropout(x, training=self.training)"
        raise ConfigError(f"the model gives other values for {differing} when asked again", where=where, fix=fix)


def _check_predictions(predictions: Any, logits: bool, where: str) -> None:
    if logits and (not isinstance(predictions, Tensor) or predictions.ndim < 2 or predictions.shape[-1] < 2):
        expected = "logits (N, ..., classes) of at least two classes"
        fix = "Set logits=False in the Task"
        raise ConfigError(f"decode gave {kind(predictions)}", where=where, expected=expected, fix=fix)


def _check_labels(task: Task, predictions: Any) -> None:
    """Names that are not one a class would be put beside the wrong ones."""
    if task.labels and task.logits and len(task.labels) != predictions.shape[-1]:
        expected = f"a name for each of the {predictions.shape[-1]} classes of the logits"
        raise ConfigError(f"`labels` has {len(task.labels)} names", where="task", expected=expected)


def _try_metrics(task: Task, predictions: Any, targets: Any, where: str) -> None:
    if task.metrics and not isinstance(targets, Tensor):
        raise ConfigError(f"the targets are {kind(targets)}", where=where, expected="a tensor, since there are metrics")
    for name, metric in task.metrics.items():
        with blame(ConfigError, f"metric `{name}`"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a handful of examples is no fair trial of its value
            float(metric(predictions, targets))


def _check_loss(loss: Any, where: str) -> None:
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        fix = "Reduce it, for example by .mean()"
        raise ConfigError(f"loss gave {kind(loss)}", where=where, expected="a scalar tensor", fix=fix)
    if not torch.isfinite(loss):
        raise ConfigError(f"loss gave {float(loss)}", where=where, expected="a finite number")


def _check_scores(scores: Any, size: int, where: str) -> None:
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (size,):
        expected = f"a tensor of shape ({size},), one an example"
        raise ConfigError(f"score gave {kind(scores)}", where=where, expected=expected)


def _class_count(task: Task, output: Tensor) -> int:
    """How many classes a model tells apart by its output (N, classes); 0 where that holds something else."""
    return output.shape[1] if task.logits and isinstance(task.decode, Output) and output.ndim == 2 else 0


def _check_range(task: Task, class_count: int, labels: Sequence[int]) -> None:
    """Raise ConfigError where our loss would be asked for a class that the model has no logit for.

    A user's loss may count otherwise; what it raises passes.
    """
    is_our_loss = getattr(task.loss, "func", task.loss) is cross_entropy
    wrong = [label for label in labels if not 0 <= label < class_count and label != IGNORED]
    if is_our_loss and class_count and wrong:
        problem = f"a label is {wrong[0]}, and the model gives {class_count} logits"
        fix = "Give the model an output for each class, or correct the labels"
        raise ConfigError(problem, expected=f"labels from 0 to {class_count - 1}", fix=fix)


def _never_occurring(task: Task, class_count: int, highest: int) -> list[str]:
    """A warning where the model tells more classes apart than the data have, unless the task names them all."""
    if task.labels or highest < 0 or highest + 1 >= class_count:
        return []
    surplus = f"{class_count - highest - 1} classes never occur, or its head was made for other data"
    return [f"task: the model gives {class_count} logits, and no label is above {highest}: {surplus}"]
