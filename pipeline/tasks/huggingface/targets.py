"""Targets of a task on a dataset: classes and real numbers, with the loss, score and metrics that belong to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pipeline.errors import ConfigError
from pipeline.task import correct, cross_entropy, minus_squared_error, squared_error
from pipeline.tasks import metrics

if TYPE_CHECKING:
    from datasets import Dataset

TARGET = "target"


@dataclass(frozen=True)
class Classes:
    """Labels as class numbers.

    Args:
        column: where they are.
        names: of the classes, in the order of their numbers.
        numbers: the number of each value; None where the values are the numbers.
    """

    column: str
    names: tuple[str, ...]
    numbers: Mapping[Any, int] | None = None
    type: ClassVar[str] = "int64"

    @property
    def key(self) -> Any:
        """What tells it apart."""
        return [self.column, self.names, [*map(str, self.numbers)] if self.numbers else None]

    def __call__(self, values: Sequence[Any]) -> list[int]:
        """The numbers of the classes.

        Raises:
            ConfigError: a label is missing, is hidden, or does not occur in train.
        """
        for value in values:
            if value is None or (value == -1 and value not in (self.numbers or {})):
                fix = "Set `test` to a part that has labels, such as `test: validation`, or to a share of train"
                raise ConfigError(f"a label in `{self.column}` is {value}, as labels that are kept secret are", fix=fix)
            if self.numbers is not None and value not in self.numbers:
                labels = ", ".join(self.names[:12])
                raise ConfigError(f"the label {value!r} in `{self.column}` does not occur in train", expected=labels)
        return [int(value) if self.numbers is None else self.numbers[value] for value in values]


def classes(rows: "Dataset", column: str) -> Classes:
    """The classes of a column: the names that the dataset knows, else the values that occur, sorted.

    Args:
        rows: all of train.
        column: of class labels, texts or whole numbers.
    """
    from datasets import ClassLabel

    feature = rows.features[column]
    if isinstance(feature, ClassLabel):
        target_classes = Classes(column, tuple(feature.names))
    else:
        values = sorted(value for value in rows.unique(column) if value is not None)
        if any(isinstance(value, float) for value in values):
            fix = "Set `target`, or `kind: text_regression`"
            raise ConfigError(f"`{column}` holds real numbers", expected="labels", fix=fix)
        target_classes = Classes(column, tuple(map(str, values)), {value: i for i, value in enumerate(values)})
    if len(target_classes.names) < 2:
        problem = f"`{column}` has the labels {', '.join(target_classes.names) or 'none'}"
        raise ConfigError(problem, expected="two or more")
    return target_classes


@dataclass(frozen=True)
class Reals:
    """Real targets, from `low` to `high` mapped to 0 to 1.

    Args:
        column: where they are.
        low, high: the range of the values.
    """

    column: str
    low: float = 0.0
    high: float = 1.0
    type: ClassVar[str] = "float32"

    @property
    def key(self) -> Any:
        """What tells it apart."""
        return [self.column, self.low, self.high]

    def __call__(self, values: Sequence[Any]) -> list[float]:
        """The values, scaled. Raises ConfigError where one is missing or is no finite number."""
        for value in values:
            if value is None or not np.isfinite(value):
                fix = "Leave such rows out, or set `test` to a part that has values"
                raise ConfigError(f"a value in `{self.column}` is {value}", expected="a finite number", fix=fix)
        return [(float(value) - self.low) / (self.high - self.low) for value in values]


def of_classes(target: Classes) -> dict[str, Any]:
    """What a task of one class an example has: the cross-entropy of `logits` is the loss, right or wrong the score."""
    return {"loss": cross_entropy, "score": correct, "logits": True, "output": "logits", "labels": target.names}


def of_numbers(output: str) -> dict[str, Any]:
    """What a task of one real number an example has: the mean squared error is the loss, its negative the score.

    That is no ratio scale, so there is no retention, and the drop stands in its place; Spearman's and Pearson's
    correlations are the metrics.
    """
    figures = {"spearman": metrics.spearman, "pearson": metrics.pearson}
    return {"loss": squared_error, "score": minus_squared_error, "output": output, "metrics": figures}
