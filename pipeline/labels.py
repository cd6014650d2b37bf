"""The class numbers in a task's data, compared with the logits that a model gives for them."""

from collections.abc import Sequence

from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.task import Output, Task, cross_entropy

IGNORED = -100  # what torch's cross-entropy leaves out


def classes(task: Task, output: Tensor) -> int:
    """How many classes a model tells apart by its output (N, classes); 0 where that holds something else."""
    return output.shape[1] if task.logits and isinstance(task.decode, Output) and output.ndim == 2 else 0


def check_range(task: Task, known: int, labels: Sequence[int]) -> None:
    """Check that the model tells the labels' classes apart. A user's loss may count otherwise; what it raises passes.

    Args:
        task: its loss is looked at.
        known: classes that the model tells apart.
        labels: class numbers in the data.

    Raises:
        ConfigError: our loss would be asked for a class that the model has no logit for.
    """
    is_our_loss = getattr(task.loss, "func", task.loss) is cross_entropy
    wrong = [label for label in labels if not 0 <= label < known and label != IGNORED]
    if is_our_loss and known and wrong:
        raise ConfigError(
            f"a label is {wrong[0]}, and the model gives {known} logits",
            expected=f"labels from 0 to {known - 1}",
            fix="Give the model an output for each class, or correct the labels",
        )


def never_occurring(task: Task, known: int, highest: int) -> list[str]:
    """A warning where the model tells more classes apart than the data have, unless the task names them all."""
    if task.labels or highest < 0 or highest + 1 >= known:
        return []
    warning = (
        f"the model gives {known} logits, and no label is above {highest}: {known - highest - 1} classes never occur"
    )
    return [f"task: {warning}, or its head was made for other data"]
