"""The front of a comparison as figures: one for each two of its axes."""

from collections.abc import Callable, Sequence
from itertools import combinations

from pipeline.base.formatting import bytes_text, count_text, interval_text
from pipeline.measure.strategies.pareto import AXES
from pipeline.records.comparison import BASELINE, ComparisonRecord, StrategyRecord
from pipeline.report.html.plots.charts import Axis, Point, scatter
from pipeline.report.html.text import duration_text, joined
from pipeline.report.html.views import Cell, Figure, Plot, Table

Reach = tuple[float, float, float]

TEXTS: dict[str, Callable[[float], str]] = {
    "size": bytes_text,
    "payload": bytes_text,
    "params": count_text,
    "macs": count_text,
    "retention": lambda value: f"{value:.3f}",
    "latency": lambda value: f"{value:.2f}",
    "seconds": duration_text,
}
LIMITS = {"size": "size_bytes", "params": "params", "macs": "macs", "retention": "retention"}
"""Limits of a budget by the axis that they are on; one on latency is of a runtime, which an axis is not."""
SHARES = ("retention", "latency")
"""Axes that are told as shares of the baseline, which is 1 there, and that have intervals."""


def front(record: ComparisonRecord) -> list[Figure]:
    """The figure of the front, with a drawing for each pair of axes that some strategies have; empty without any."""
    axes = [axis for axis in dict.fromkeys(record.axes) if axis in AXES]
    on_validation = any(s.validation_retention for s in record.strategies[1:])
    # Retention goes up, everything else across.
    pairs = [sorted(pair, key="retention".__eq__) for pair in combinations(axes, 2)]
    plots = [plot for pair in pairs if (plot := _plot(record, pair[0], pair[1], on_validation))]
    if not plots:
        return []
    words = "Each strategy with its 95 % intervals. A star is the chosen one, a hollow point is dominated by another."
    words += " Dashed red lines are limits of the budget." * any(_limit(record, axis) is not None for axis in axes)
    if not on_validation:
        words += " There are no validation figures, so retention is that of the test split."
    return [Figure("front", f"Front of {joined(axes)}", words, plots, _table(record, axes, on_validation), "Axes")]


def reach(strategy: StrategyRecord, axis: str, on_validation: bool) -> Reach | None:
    """A strategy's value on an axis with its interval, which has no width for what is counted; None without it."""
    if axis not in SHARES:
        value = AXES[axis].read(strategy)
        return None if value is None else (float(value),) * 3
    retention = strategy.validation_retention if on_validation else strategy.retention
    share = retention if axis == "retention" else next(iter(strategy.latency), None)
    if share is None:
        return (1.0, 1.0, 1.0) if strategy.name == BASELINE else None  # the baseline is 1 of itself
    if share.low is None or share.high is None:
        return (share.value,) * 3
    return share.value, share.low, share.high


def _plot(record: ComparisonRecord, across: str, up: str, on_validation: bool) -> Plot | None:
    points = []
    for strategy in record.strategies:
        x, y = reach(strategy, across, on_validation), reach(strategy, up, on_validation)
        if x and y:
            texts = [f"{_title(a, on_validation)}: {_value_text(a, v)}" for a, v in ((across, x), (up, y))]
            texts.append(f"retention on test: {interval_text(strategy.retention)}")
            points.append(Point(strategy.name, x, y, _kind(strategy), texts))
    if not points:
        return None
    best = [(p.x[0], p.y[0]) for p in sorted(points, key=lambda p: p.x[0]) if p.kind in ("front", "chosen")]
    path = best if len(record.axes) == 2 else []  # a front of three axes is no line in two of them
    axes = [_axis(axis, on_validation, _limit(record, axis)) for axis in (across, up)]
    figure = scatter(points, axes[0], axes[1], path, shape="hv")
    return Plot(f"{across} and {up}", figure)


def _kind(strategy: StrategyRecord) -> str:
    if strategy.chosen:
        return "chosen"
    if strategy.name == BASELINE:
        return "baseline"
    return "front" if strategy.on_front else "dominated"


def _title(axis: str, on_validation: bool) -> str:
    return "retention on test" if axis == "retention" and not on_validation else AXES[axis].label


def _axis(axis: str, on_validation: bool, limit: float | None) -> Axis:
    unit = AXES[axis].unit
    suffix = {"bytes": "B", "s": " s"}.get(unit, unit)
    return Axis(_title(axis, on_validation), suffix=suffix, is_count=axis not in SHARES, limit=limit)


def _limit(record: ComparisonRecord, axis: str) -> float | None:
    """The limit of the budget on an axis, where all strategies that were judged have the same."""
    gates = [gate for strategy in record.strategies for gate in strategy.gates if gate.name == LIMITS.get(axis)]
    limits = {gate.limit for gate in gates if gate.of != "expected"}
    return limits.pop() if len(limits) == 1 else None


def _value_text(axis: str, value: Reach) -> str:
    text = TEXTS[axis]
    return text(value[0]) if value[1] == value[2] else f"{text(value[0])} [{text(value[1])}, {text(value[2])}]"


def _table(record: ComparisonRecord, axes: Sequence[str], on_validation: bool) -> Table:
    rows: list[Sequence[Cell]] = []
    for strategy in record.strategies:
        values = [reach(strategy, axis, on_validation) for axis in axes]
        cells = [_value_text(axis, value) if value else "-" for axis, value in zip(axes, values, strict=True)]
        rows.append([strategy.name, *cells, interval_text(strategy.retention), _place(strategy)])
    titles = [_title(axis, on_validation) for axis in axes]
    columns = ["strategy", *titles, "retention on test", "place"]
    return Table("The front", columns, rows, frozenset({len(columns) - 1}))


def _place(strategy: StrategyRecord) -> str:
    if strategy.chosen:
        return "chosen, on the front" if strategy.on_front else "chosen"
    return "on the front" if strategy.on_front else "dominated"
