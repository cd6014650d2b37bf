"""A model tried on a task's telling examples: that outputs, loss, decode, score and metrics fit each other."""

import warnings
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import default_collate

from pipeline.base.batches import Inputs, Outputs, as_inputs
from pipeline.base.targets.labelling import IGNORED
from pipeline.base.targets.summary import TargetSummary
from pipeline.build.labelling import settled, unknown_classes
from pipeline.build.lengths import check_lengths
from pipeline.build.probe import SplitSummary
from pipeline.errors import ConfigError, blame
from pipeline.model import Model, TorchModel
from pipeline.task import Output, Task, first_output, kind, scored, taken_by


class _Trial(NamedTuple):
    """A model on the telling examples of a split."""

    where: str
    inputs: Inputs
    targets: Any
    outputs: Outputs
    scored: Tensor


def try_out(task: Task, model: Model, summaries: dict[str, SplitSummary]) -> tuple[Task, list[str]]:
    """Run model, loss, decode and score on the telling examples of each split, and the model on the longest too.

    Returns:
        The task with its kind, and without examples that cannot be scored; warnings and notes.

    Raises:
        ConfigError: one of them raises, or gives another shape than it should, or the loss is not finite; batches are
            of other lengths, on an axis that the task's `axes` do not name.
    """
    trials = {name: _trial(task, name, model, summaries[name]) for name in task.splits}
    facts = {name: summary.targets for name, summary in summaries.items()}
    pairs = [(trial.scored, trial.targets) for trial in trials.values()]
    task, messages = settled(task, facts, pairs)
    class_count = _class_count(task, pairs[0][0])
    for name, trial in trials.items():
        _check_range(task, class_count, name, facts[name])
        with blame(ConfigError, trial.where, fix="Look at the shapes and the range of the targets"):
            _check_loss(task.loss(trial.outputs, trial.targets), trial.where)
            predictions = task.decode(model.predict, trial.inputs)
            _check_predictions(predictions, task, trial.where)
            _check_labels(task, predictions)
            _check_scores(task.score(predictions, trial.targets), len(next(iter(trial.inputs.values()))), trial.where)
            _try_metrics(task, predictions, trial.targets, trial.where)
    warnings = (*_chosen_silently(task, trial.outputs), *_never_occurring(task, class_count, facts))
    return task, [*messages, *warnings, *unknown_classes(task, facts)]


def _trial(task: Task, name: str, model: Model, summary: SplitSummary) -> _Trial:
    split, ends = task.splits[name], summary.ends
    check_lengths(task, split, model, ends, f"task, {name} examples {list(ends)}")
    positions = summary.extremes if split.collate else sorted({*summary.extremes, *ends})
    where = f"task, {name} examples {positions}"
    with blame(ConfigError, where, fix="Look at the shapes and the range of the targets"):
        batch, targets = (split.collate or default_collate)([split[i] for i in positions])
        inputs = as_inputs(batch)
    with blame(ConfigError, where, fix=_types(model, inputs) or "Look at the shapes and the types of the inputs"):
        outputs = model.predict(inputs)
        _check_repeats(outputs, model.predict(inputs), where)
        return _Trial(where, inputs, targets, outputs, scored(outputs, task.output))


def _types(model: Model, inputs: Inputs) -> str:
    """What to do where a module that fails on the inputs has weights of another type; empty where they are alike."""
    if not isinstance(model, TorchModel):
        return ""
    weights = {weight.dtype for weight in model.module.parameters() if weight.is_floating_point()}
    others = [name for name, value in inputs.items() if value.is_floating_point() and value.dtype not in weights]
    if not weights or not others:
        return ""
    types = " and ".join(sorted(map(str, weights)))
    remedy = "give the inputs as .float()" if weights == {torch.float32} else "end the builder with .float()"
    text = f"The weights are {types} and `{others[0]}` is {inputs[others[0]].dtype}: {remedy}"
    return text.replace("torch.", "")


def _chosen_silently(task: Task, outputs: Outputs) -> list[str]:
    """A warning where the first of several outputs is scored because nobody said which."""
    first = next(iter(outputs))
    # A file's output that the task calls otherwise has both names, and is one.
    others = [name for name, value in outputs.items() if value is not outputs[first]]
    if task.decode is not first_output or not others or first == "logits":
        return []
    names = ", ".join([first, *others])
    return [f"task: of the outputs {names} the first one, `{first}`, is trained on and scored; set `output`"]


def _check_repeats(once: Outputs, again: Outputs, where: str) -> None:
    differing = [name for name in once if not torch.equal(once[name], again[name]) and not once[name].isnan().any()]
    if differing:
        fix = "Draw at random in training only, such as F.dropout(x, training=self.training)"
        raise ConfigError(f"the model gives other values for {differing} when asked again", where=where, fix=fix)


def _check_predictions(predictions: Any, task: Task, where: str) -> None:
    if not task.logits or (isinstance(predictions, Tensor) and task.target_kind == "multi_label"):
        return
    axis = task.labelling.axis
    if not isinstance(predictions, Tensor) or predictions.ndim < max(2, axis + 1) or predictions.shape[axis] < 2:
        expected = "logits (N, ..., classes) of at least two classes"
        fix = "Set logits=False in the Task"
        raise ConfigError(f"decode gave {kind(predictions)}", where=where, expected=expected, fix=fix)


def _check_labels(task: Task, predictions: Any) -> None:
    """Names that are not one a class would be put beside the wrong ones."""
    if task.labels and task.logits and len(task.labels) != (count := predictions.shape[task.labelling.axis]):
        expected = f"a name for each of the {count} classes of the logits"
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
    """How many classes a model tells apart by its output; 0 where that holds something else."""
    has_classes = task.target_kind in ("single_label", "dense", "other") and output.ndim > 1
    return output.shape[task.labelling.axis] if has_classes and task.logits and isinstance(task.decode, Output) else 0


def _check_range(task: Task, class_count: int, name: str, targets: TargetSummary) -> None:
    """Raise ConfigError where our loss would be asked for a class that the model has no logit for.

    A user's loss may count otherwise; what it raises passes.
    """
    if not class_count or not taken_by(task.loss) or targets.shares:
        return
    for position, label in ((targets.low_at, targets.low), (targets.high_at, targets.high)):
        if isfinite(label) and not 0 <= label < class_count and label != IGNORED:
            problem = f"a label is {label:.12g}, and the model gives {class_count} logits"
            fix = "Give the model an output for each class, or correct the labels"
            expected = f"labels from 0 to {class_count - 1}"
            raise ConfigError(problem, where=f"task, {name} example {position}", expected=expected, fix=fix)


def _never_occurring(task: Task, class_count: int, facts: dict[str, TargetSummary]) -> list[str]:
    """A warning where the model tells more classes apart than the data have, unless the task names them all."""
    highest = max(targets.high for targets in facts.values())
    counted = task.target_kind == "single_label" and not task.labels and not facts["train"].shares
    if not counted or not 0 <= highest < class_count - 1:
        return []
    surplus = f"{class_count - highest - 1:g} classes never occur, or its head was made for other data"
    return [f"task: the model gives {class_count} logits, and no label is above {highest:g}: {surplus}"]
