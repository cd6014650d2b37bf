"""Axes whose length varies from batch to batch: found in a task's data, and compared with what the task says."""

from pipeline.base.batches import Axes, Inputs
from pipeline.errors import ConfigError, blame
from pipeline.model import Model
from pipeline.task import Batch, Split, Task, kind


def check_lengths(task: Task, split: Split, model: Model, ends: tuple[int, int], where: str) -> None:
    """Check that only named axes vary in length. Where short and long batches differ, the model is tried on both.

    Args:
        task: its `axes` name what may differ.
        split: one of its splits.
        model: at the start of the chain.
        ends: positions of the shortest and of the longest example.
        where: for messages.

    Raises:
        ConfigError: an axis differs that `axes` do not name, or they name what is not there.
    """
    with blame(ConfigError, where):
        short, long = (batch_of(split, [end, end]) for end in ends)
        for inputs in (short, long):
            check_axes(task.axes, inputs)
        varying_axes = differing(short, long)
        unnamed = [
            (name, axis) for name, axes in varying_axes.items() for axis in axes if axis not in task.axes.get(name, {})
        ]
        if unnamed:
            name, axis = unnamed[0]
            merged = {n: {**varying_axes.get(n, {}), **task.axes.get(n, {})} for n in {**task.axes, **varying_axes}}
            raise ConfigError(
                f"axis {axis} of `{name}` is {short[name].shape[axis]} long in a batch of short examples and "
                f"{long[name].shape[axis]} in one of long examples",
                expected="one length in all batches, or the axis in the task's `axes`",
                fix=f"Give the Task axes={merged}, or let collate fill up to one length",
            )
        if varying_axes:
            model.predict(short)
            model.predict(long)


def check_axes(axes: Axes, inputs: Inputs) -> None:
    """Raise ConfigError where `axes` name what is not there, or axes of one name differ in length."""
    lengths: dict[str, int] = {}
    for name, by_axis in axes.items():
        if name not in inputs:
            raise ConfigError(f"`axes` names an input `{name}`", expected=f"one of {', '.join(inputs)}")
        for axis, called in by_axis.items():
            if not 0 < axis < inputs[name].ndim:
                problem = f"`axes` names axis {axis} of `{name}`, whose batch is {kind(inputs[name])}"
                raise ConfigError(problem, expected="an axis beside the batch, from 1 on")
            size = inputs[name].shape[axis]
            if lengths.setdefault(called, size) != size:
                problem = f"axis {axis} of `{name}` is {size} long and another axis `{called}` {lengths[called]}"
                raise ConfigError(problem, expected="equal lengths for equal names", fix="Name them apart in `axes`")


def differing(short: Inputs, long: Inputs) -> dict[str, dict[int, str]]:
    """The axes that differ between two batches, as `Task.axes`; where both lengths are the same, so is the name."""
    names: dict[tuple[int, int], str] = {}
    varying_axes: dict[str, dict[int, str]] = {}
    for name in short:
        pairs = list(zip(short[name].shape, long[name].shape, strict=True))
        for axis, pair in list(enumerate(pairs))[1:]:
            if pair[0] != pair[1]:
                called = names.setdefault(pair, f"length_{len(names) + 1}" if names else "length")
                varying_axes.setdefault(name, {})[axis] = called
    return varying_axes


def batch_of(split: Split, positions: list[int]) -> Inputs:
    """The inputs of the examples at these positions, as a batch."""
    batch: Batch = next(iter(split.select(positions).loader(len(positions))))
    return batch.inputs
