"""The kind of a task, told once, and what follows from it: where the classes are, and which targets count."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Size, Tensor

Kind = Literal["single_label", "multi_label", "dense", "regression", "other"]
"""One class an example; any number of labels an example; one class a position; real numbers; something else."""

IGNORED = -100
"""The target that does not count, as in torch's cross-entropy."""


def counts(targets: Tensor, ignore_index: int) -> Tensor:
    """Where targets count, as bool: they are neither `ignore_index` nor -100."""
    return (targets != ignore_index) & (targets != IGNORED)


def class_axes(output: Size, targets: Size) -> list[int]:
    """The axes of an output (N, ..., classes, ...) without which it has the shape of the targets, or 1 there.

    Several fit where the number of classes is also a length: axis 1 stands in front of four axes or more, as torch's
    losses have it, and else the last, as in (N, positions, classes).
    """
    shapes = {axis: Size([*output[:axis], *output[axis + 1 :]]) for axis in range(1, len(output)) if output[axis] > 1}
    fitting = [a for a, shape in shapes.items() if targets in (shape, Size([*output[:a], 1, *output[a + 1 :]]))]
    return sorted(fitting, key=lambda axis: (axis != 1 or len(output) < 4, -axis))


@dataclass(frozen=True)
class Labelling:
    """How the targets of a task say what its outputs should be.

    Args:
        kind: of the task.
        axis: that of the classes in an output; of no meaning for `multi_label`, where each number is a label.
        ignore_index: the target that does not count, beside -100, which never does.
    """

    kind: Kind = "single_label"
    axis: int = -1
    ignore_index: int = IGNORED

    def logits(self, output: Tensor) -> Tensor:
        """Logits (N, ..., classes) whose softmax over the last axis is what the output says of each position.

        A label among several is a choice of its own, absent or present: softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)].
        So what is defined by a softmax, as a divergence or the best class, holds for all kinds.
        """
        if self.kind == "multi_label":
            return torch.stack([torch.zeros_like(output), output], -1)
        return output.movedim(self.axis, -1)

    def numbers(self, output: Tensor, targets: Tensor | Any) -> Tensor | None:
        """The class of each position (N, ...), int64, and -100 where none counts; None where targets are no classes.

        Args:
            output: logits as the model gives them.
            targets: class numbers of any type, also (N, 1) or (N, 1, H, W); of `multi_label` 0 and 1; or a share of
                each class, in the output's shape, of which the largest counts.
        """
        if not isinstance(targets, Tensor) or self.kind in ("regression", "other"):
            return None
        if self.kind == "multi_label":
            if targets.numel() != output.numel() or len(targets) != len(output):
                return None
            labels: Tensor = targets.reshape(output.shape)
            return (labels > 0.5).long().where(counts(labels, self.ignore_index), IGNORED)
        if not -output.ndim <= self.axis < output.ndim:
            return None
        if targets.shape == output.shape:
            return targets.movedim(self.axis, -1).argmax(-1)
        axis = self.axis % output.ndim
        if targets.ndim == output.ndim and targets.shape[axis] == 1:
            targets = targets.squeeze(axis)
        real = targets.is_floating_point() and bool((targets != targets.floor()).any())
        if real or targets.shape != output.shape[:axis] + output.shape[axis + 1 :]:
            return None
        return targets.long().where(counts(targets, self.ignore_index), IGNORED)

    def counted(self, output: Tensor, targets: Any) -> Tensor | None:
        """Which positions (N, ...) count, as bool; None where targets do not tell, and all do."""
        numbers = self.numbers(output, targets)
        return None if numbers is None else numbers != IGNORED


def of_classes(output: Tensor, targets: Any, axis: int | None = None, ignore_index: int = IGNORED) -> Labelling:
    """The labelling of one class an example or a position; where the classes are is told by the shapes unless given.

    Shares of classes have the shape of the output; at positions their classes are on axis 1, as in torch's losses.
    """
    if axis is None and isinstance(targets, Tensor):
        shares = targets.shape == output.shape and output.ndim > 2
        axis = 1 if shares else next(iter(class_axes(output.shape, targets.shape)), -1)
    return Labelling("single_label", -1 if axis is None else axis, ignore_index)
