"""A metric over a whole set, resampled at little cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """A metric over a whole set that looks at each example once, so that an interval by resampling costs little.

    Any function (predictions, targets) -> float is a metric too; it is then called anew for each resample.

    Args:
        rows: (predictions, targets) -> (N, ...), what each example contributes, such as counts.
        figure: (any rows of these) -> the metric over their examples.
    """

    rows: Callable[[Any, Any], Any]
    figure: Callable[[Any], float]

    def __call__(self, predictions: Any, targets: Any) -> float:
        """The metric over all examples."""
        return self.figure(self.rows(predictions, targets))
