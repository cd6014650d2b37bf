"""The kind of a task, told once by its targets and what a model gives; what is left out, and what is suspicious."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

from torch import Size, Tensor

from pipeline.base.formatting import few
from pipeline.base.targets.labelling import IGNORED, Kind, class_axes
from pipeline.base.targets.multi_label import MULTI_LABEL
from pipeline.base.targets.summary import TargetSummary, merged
from pipeline.errors import ConfigError, Note
from pipeline.measure.classes import class_name
from pipeline.task import Output, Task, taken_by

Pair = tuple[Tensor, Any]
"""What a model gives for some examples, (N, ...), and their targets."""

MOST_NAMED = 1000  # classes, above which some that are rare are missing in any split


def settled(task: Task, summaries: Mapping[str, TargetSummary], pairs: Sequence[Pair]) -> tuple[Task, list[str]]:
    """The task with its kind, where its classes are, and the examples that are scored; with notes and warnings.

    Args:
        task: what it says itself stays.
        summaries: of the targets of each split.
        pairs: of some examples of each split.

    Raises:
        ConfigError: no example of a split has a label.
    """
    if not all(isinstance(targets, Tensor) for _, targets in pairs):
        said: Kind | None = task.target_kind if task.target_kind in ("multi_label", "regression") else None
        return replace(task, target_kind=said or "other"), []
    facts, output = merged([*summaries.values()]), pairs[0][0]
    kind = task.target_kind or kind_of(output.shape, pairs[0][1].shape, facts, task.logits)
    changes: dict[str, Any] = {"target_kind": kind}
    messages: list[str] = []
    if kind in ("single_label", "dense") and task.class_axis is None:
        fitting = _axes(pairs, facts)
        changes["class_axis"] = fitting[0] if fitting else None
        if len(fitting) > 1:
            places = " or ".join(map(str, sorted(fitting)))
            messages.append(
                f"task: by the shape of the targets the classes of the logits {tuple(output.shape)} may be on axis "
                f"{places}; {fitting[0]} is taken. Set `class_axis`"
            )
    if kind == "multi_label" and isinstance(task.decode, Output):
        logits = task.logits or any(_beyond_shares(values) for values, _ in pairs)
        metrics = {**MULTI_LABEL, **task.metrics} if logits and output.ndim < 3 else task.metrics
        changes |= {"logits": logits, "metrics": metrics}
    task = replace(task, **changes)
    if kind == "dense" and not taken_by(task.loss):
        task, notes = _with_void(task, facts, output.shape[task.labelling.axis])
        messages += notes
    return _scorable(task, summaries, messages)


def kind_of(output: Size, targets: Size, facts: TargetSummary, logits: bool) -> Kind:
    """What a task is by the shapes of what a model gives and of its targets, and by the values of these.

    The table in `stages/distill/README.md` says it in words.
    """
    several = len(output) > 1 and output[1:].numel() > 1
    if output == targets or (output.numel() == targets.numel() and not several):
        if facts.binary and not (several and facts.one_hot):
            return "multi_label"
        if several and facts.shares and (facts.binary or logits):
            return "single_label" if len(output) == 2 else "dense"
        return "multi_label" if logits and several and 0 <= facts.low <= facts.high <= 1 else "regression"
    if facts.whole and class_axes(output, targets):
        return "single_label" if len(output) == 2 else "dense"
    return "other"


def unknown_classes(task: Task, summaries: Mapping[str, TargetSummary]) -> Iterator[str]:
    """A warning for each split that has classes of which train has no example."""
    vectors = task.target_kind == "multi_label" or (task.target_kind == "single_label" and summaries["train"].one_hot)
    name = "places" if vectors else "values"
    known: set[int] = getattr(summaries["train"], name)
    if task.target_kind not in ("single_label", "multi_label", "dense") or not 0 < len(known) <= MOST_NAMED:
        return
    for split in ("validation", "test"):
        unknown = sorted(number for number in getattr(summaries[split], name) - known if number >= 0)
        if unknown:
            classes = few([class_name(number, task.labels) for number in unknown], 5)
            yield f"task: {split} has examples of classes that train has none of: {classes}. No training can teach them"


def _axes(pairs: Sequence[Pair], facts: TargetSummary) -> list[int]:
    """Where the classes may be, by all pairs: lengths differ from batch to batch, the number of classes does not."""
    output, targets = pairs[0]
    if output.shape == targets.shape:  # shares of classes
        return [1] if facts.shares else []
    axes = [class_axes(values.shape, numbers.shape) for values, numbers in pairs]
    sizes = [{axis: values.shape[axis] for axis in fitting} for fitting, (values, _) in zip(axes, pairs, strict=True)]
    return [axis for axis in axes[0] if all(size.get(axis) == output.shape[axis] for size in sizes)]


def _beyond_shares(values: Tensor) -> bool:
    return bool(values.min() < 0 or values.max() > 1)


def _with_void(task: Task, facts: TargetSummary, classes: int) -> tuple[Task, list[str]]:
    """The task with the one target beyond its classes as what is ignored: a loss of its own may know it by number."""
    beyond = {value for value in (facts.low, facts.high) if isfinite(value) and not 0 <= value < classes}
    from_one = facts.low == 1 and facts.high == classes
    if len(beyond) != 1 or from_one or task.ignore_index != IGNORED:
        return task, []
    void = int(*beyond)
    text = f"task: targets of {void} are taken as ignored, for the model has {classes} classes"
    return replace(task, ignore_index=void), [Note(f"{text}; say so by `ignore_index`")]


def _scorable(task: Task, summaries: Mapping[str, TargetSummary], messages: list[str]) -> tuple[Task, list[str]]:
    """The task without those examples of validation and test of which nothing counts."""
    if task.target_kind not in ("single_label", "multi_label", "dense"):
        return task, messages
    splits: dict[str, Any] = {}
    for name in ("train", "validation", "test"):
        split, unlabelled = getattr(task, name), set(summaries[name].unlabelled)
        if unlabelled and len(unlabelled) == len(split):
            problem = f"no example has a label: all targets are {task.ignore_index}, which is ignored"
            raise ConfigError(problem, where=f"task, {name}", expected="labels, or another `ignore_index` in the Task")
        if unlabelled and name != "train":
            splits[name] = split.select([i for i in range(len(split)) if i not in unlabelled])
            rest = f"{len(unlabelled)} of {len(split)} {name} examples"
            messages.append(Note(f"task: {rest} have no label ({task.ignore_index}) and are left out of the score"))
    return replace(task, **splits), messages
