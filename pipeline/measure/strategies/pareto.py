"""Which strategies no other beats, and which one to take: on validation figures and costs, never on the test split."""

from collections.abc import Callable, Mapping, Sequence
from math import isnan, nan
from typing import Literal, NamedTuple

from pipeline.records.comparison import StrategyRecord

Sense = Literal["least", "most"]


class AxisFacts(NamedTuple):
    """What is better on an axis, and how to read and to say it.

    Args:
        label: for a title.
        sense: whether least or most is best.
        unit: of the figure, empty for a plain number.
        read: the figure of a strategy, None where it has none.
        best: what to call the best one.
    """

    label: str
    sense: Sense
    unit: str
    read: Callable[[StrategyRecord], float | None]
    best: str


def _retention(strategy: StrategyRecord) -> float | None:
    return strategy.validation_retention.value if strategy.validation_retention else None


def _latency(strategy: StrategyRecord) -> float | None:
    return strategy.latency[0].value if strategy.latency else None


AXES: dict[str, AxisFacts] = {
    "size": AxisFacts("size of the file", "least", "bytes", lambda s: s.size_bytes, "smallest"),
    "payload": AxisFacts("size of the weights", "least", "bytes", lambda s: s.payload_bytes, "smallest weights"),
    "params": AxisFacts("parameters", "least", "", lambda s: s.params, "fewest parameters"),
    "macs": AxisFacts("MACs", "least", "", lambda s: s.macs, "fewest MACs"),
    "retention": AxisFacts("retention on validation", "most", "", _retention, "most accurate on validation"),
    "latency": AxisFacts("latency over the baseline's", "least", "", _latency, "fastest"),
    "seconds": AxisFacts("training time", "least", "s", lambda s: s.seconds, "quickest to make"),
}


def front(points: Mapping[str, Sequence[float | None]], sense: Sequence[Sense]) -> set[str]:
    """The names of the points that no other dominates; equal points stay together.

    A point dominates another that it is as good as on every axis and better than on one. A point with a figure that is
    missing or NaN is left out: it is not on the front and dominates nothing.

    Args:
        points: by name, a figure an axis.
        sense: for each axis whether least or most is best.
    """
    costs = {name: [_cost(*one) for one in zip(figures, sense, strict=True)] for name, figures in points.items()}
    whole = {name: cost for name, cost in costs.items() if not any(map(isnan, cost))}
    return {name for name, cost in whole.items() if not any(_dominates(other, cost) for other in whole.values())}


def front_of(strategies: Sequence[StrategyRecord], axes: Sequence[str]) -> set[str]:
    """The names of the strategies on the front.

    Args:
        strategies: the baseline among them where it is to be a point.
        axes: two or more of `AXES`.
    """
    facts = [AXES[axis] for axis in axes]
    return front({s.name: [one.read(s) for one in facts] for s in strategies}, [one.sense for one in facts])


def choose(strategies: Sequence[StrategyRecord], least: str, retention: float) -> tuple[str | None, str]:
    """The strategy that is best on an axis among those that keep enough, and why; None and why not where none does.

    Of equal ones the more accurate on validation, then the first. One without the figure cannot be chosen.

    Args:
        strategies: to choose among, so without the baseline.
        least: the axis of `AXES` on which least is best, or most for retention.
        retention: of the baseline's validation score, which the value itself has to reach.
    """
    candidates = [(s, share) for s in strategies if (share := _retention(s)) is not None and not isnan(share)]
    if not candidates:
        return None, "no strategy has a retention on validation"
    limit = f"at least {retention:g} on validation"
    keeping = [(strategy, share) for strategy, share in candidates if share >= retention]
    if not keeping:
        strategy, share = max(candidates, key=lambda one: one[1])
        return None, f"no strategy keeps {limit}; {strategy.name} comes nearest with {_below(share, retention)}"
    facts = AXES[least]
    ranked = [
        (cost, -share, position, strategy.name)
        for position, (strategy, share) in enumerate(keeping)
        if not isnan(cost := _cost(facts.read(strategy), facts.sense))
    ]
    if not ranked:
        return None, f"no strategy that keeps {limit} has a figure of `{least}`"
    if len(keeping) == 1:
        return ranked[0][-1], f"the only strategy that keeps {limit}"
    lacking = len(keeping) - len(ranked)
    reason = f"{facts.best} of the {len(keeping)} strategies that keep {limit}"
    return min(ranked)[-1], reason + (f", {lacking} of them without a figure of `{least}`" if lacking else "")


def _cost(figure: float | None, sense: Sense) -> float:
    """Less is better; NaN for what is missing."""
    if figure is None:
        return nan
    return figure if sense == "least" else -figure


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def _below(figure: float, limit: float) -> str:
    """In as few digits as still show that it is below the limit."""
    texts = (f"{figure:.{digits}f}" for digits in range(3, 17))
    return next((text for text in texts if float(text) < limit), repr(figure))
