"""The figures of each file, as a line of a table, and each of ours beside the best of theirs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.measure.statistics.means import drop
from pipeline.measure.statistics.pairs import Scores
from pipeline.measure.statistics.ratios import beside, compare

from .making import CONTROLLED, REQUIREMENTS, Cost, Way

COLUMNS = ("tool", "seconds", "peak, MB", "bytes", "of fp32", "accuracy", "points more than fp32", "ms", "over fp32")


class Row(NamedTuple):
    """A way with its file's figures: right or wrong on the test (N,), median milliseconds by round."""

    way: Way
    cost: Cost
    scores: Scores
    latencies: Sequence[float]


def figures(row: Row, fp32: Row, again: Sequence[float]) -> dict[str, Any]:
    """What is told of a file."""
    ratio, _ = compare(row.latencies, fp32.latencies, again)
    return {
        "tool": row.way.tool,
        "method": row.way.method,
        **{name: value for name, value in row.cost._asdict().items() if name not in ("file", "error")},
        "of_fp32": row.cost.size_bytes / fp32.cost.size_bytes,
        "accuracy": float(row.scores.mean()),
        "gain": gain(row, fp32),
        "latencies_ms": list(row.latencies),
        "latency_ratio": ratio.json,
    }


def gain(row: Row, other: Row) -> dict[str, float]:
    """How much more accurate a file is than another, in pairs, with its interval."""
    lost = drop(row.scores, other.scores)
    return {"value": 0 - lost.value, "low": 0 - lost.high, "high": 0 - lost.low}


def line(told: Mapping[str, Any], title: str) -> list[str]:
    """A file's line of the table."""
    stages = "" if told["stage_seconds"] is None else f" (stages {told['stage_seconds']:.1f})"
    is_fp32 = told["tool"] == "fp32"
    return [
        title,
        "" if is_fp32 else f"{told['seconds']:.1f}{stages}",
        "" if is_fp32 else f"{told['peak_bytes'] / 1e6:,.0f}",
        f"{told['size_bytes']:,}",
        f"{told['of_fp32']:.3f}",
        f"{100 * told['accuracy']:.2f}",
        "" if is_fp32 else _points(told["gain"]),
        f"{sorted(told['latencies_ms'])[len(told['latencies_ms']) // 2]:.3f}",
        _ratio(told["latency_ratio"]),
    ]


def aims(rows: Sequence[Row], fp32: Row, again: Sequence[float]) -> Iterator[str]:
    """How each of ours is beside the smallest, the fastest and the one with accuracy control of theirs."""
    theirs = [row for row in rows if row.way.tool in REQUIREMENTS]
    if not theirs:
        return
    smallest = min(theirs, key=lambda row: row.cost.size_bytes)
    fastest = min(theirs, key=lambda row: sum(row.latencies))
    controlled = [row for row in theirs if row.way.method in CONTROLLED]
    noise = compare(fp32.latencies, fp32.latencies, again)[1]
    for row in (row for row in rows if row.way.tool == "ours"):
        ratio, verdict = beside(row.latencies, fastest.latencies, [noise])
        yield (
            f"{row.way.title}: bytes {row.cost.size_bytes / smallest.cost.size_bytes:.3f} of {smallest.way.title}, "
            f"points more than it {_points(gain(row, smallest))}; latency "
            f"{_ratio(ratio.json)} of {fastest.way.title}, {verdict}"
        )
        for other in controlled:
            yield f"{row.way.title}: seconds {row.cost.seconds / other.cost.seconds:.2f} of {other.way.title}"


def _points(share: Mapping[str, float]) -> str:
    return f"{100 * share['value']:+.2f} [{100 * share['low']:+.2f}, {100 * share['high']:+.2f}]"


def _ratio(ratio: Mapping[str, Any]) -> str:
    reach = "" if ratio["low"] is None else f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
    return f"{ratio['value']:.2f}{reach}"
