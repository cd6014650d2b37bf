"""What the tables of every medium show of a model: titles of columns, and cells as text, a dash for what is missing.

A cell with several lines has a line for each latency. The terminal, Markdown and HTML each break them in their way, and
each tells time in its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.base.formatting import bytes_text, count_text, interval_text
from pipeline.records.comparison import StrategyRecord
from pipeline.records.figures import number, runtime_of
from pipeline.records.parts.gates import GateRecord
from pipeline.records.parts.models import ModelRecord
from pipeline.records.parts.stages import Spread, StageRecord
from pipeline.records.record import Record

FIGURES = ("size", "ratio", "params", "MACs", "score")
LATENCY = "latency ratio [95 %]"
STAGES = ("stage", *FIGURES, "retention [95 %]", LATENCY, "time")
STRATEGIES = (
    *("strategy", *FIGURES, "retention [95 %], validation", "retention [95 %], test", LATENCY),
    *("time", "verdict", "promised"),
)


def stage_cells(model: ModelRecord) -> list[str]:
    """The cells of `STAGES` from size to latency, which is empty where none was measured."""
    rows = model.latency if isinstance(model, StageRecord) else []
    ratios = _by_runtime([(runtime_of(row), _ratio_text(row)) for row in rows if ratio_of(row) or row.get("skipped")])
    return [*_sizes(model), f"{model.score:.4f}", interval_text(model.retention), "\n".join(ratios)]


def strategy_cells(strategy: StrategyRecord) -> list[str]:
    """The cells of `STRATEGIES` from size to latency."""
    ratios = _by_runtime([(runtime_of(t.model_dump()), interval_text(t, 2)) for t in strategy.latency])
    retentions = [interval_text(strategy.validation_retention), interval_text(strategy.retention)]
    return [*_sizes(strategy), spread_text(strategy.score), *retentions, "\n".join(ratios) or "-"]


def _by_runtime(lines: Sequence[tuple[str, str]]) -> list[str]:
    """The lines of a cell, which name the runtime where there are several."""
    several = len({runtime for runtime, _ in lines}) > 1
    return [f"{runtime} {text}" if several else text for runtime, text in lines]


def _ratio_text(row: Mapping[str, Any]) -> str:
    ratio = ratio_of(row)
    return interval_text(ratio, 2) if ratio else "skipped"


def spread_text(spread: Spread | None, with_count: bool = False) -> str:
    """0.9876 ± 0.0012; with the count also (3 seeds)."""
    if spread is None:
        return "-"
    deviation = "" if spread.deviation is None else f" ± {spread.deviation:.4f}"
    return f"{spread.mean:.4f}{deviation}" + (f" ({spread.count} seeds)" if with_count and spread.count > 1 else "")


def ratio_of(row: Mapping[str, Any], key: str = "ratio") -> dict[str, float | None] | None:
    """A ratio of a latency row with its interval, where there is one that can be read."""
    ratio = row.get(key)
    if not isinstance(ratio, dict) or number(ratio.get("value")) is None:
        return None
    figures = {name: number(ratio.get(name)) for name in ("value", "low", "high")}
    return figures if figures["high"] is not None else {**figures, "low": None}


def latency_ratios(record: Record) -> list[tuple[dict[str, Any], dict[str, float | None]]]:
    """The rows that have a ratio of the last stage that measured latencies, each with it."""
    rows = record.latency_stage.latency if record.latency_stage else []
    return [(row, ratio) for row in rows if (ratio := ratio_of(row))]


def counts_text(gate: GateRecord) -> str:
    """What a gate counts as, where that is not its verdict."""
    return f", counts as {gate.counts_as}" if gate.counts_as not in (None, gate.verdict) else ""


def tokenizer_text(record: Record) -> str:
    """The last model and the tokenizer that is deployed beside it, in bytes; empty where there is no tokenizer."""
    first, last = record.baseline, record.final
    if not first or not last or last.tokenizer_bytes is None:
        return ""
    before = f", the baseline's {_with_tokenizer(first)}" if record.stages else ""
    return f"Model and tokenizer: {_with_tokenizer(last)}{before}"


def _with_tokenizer(model: ModelRecord) -> str:
    beside = model.tokenizer_bytes or 0
    return f"{bytes_text(model.size_bytes)} + {bytes_text(beside)} = {bytes_text(model.size_bytes + beside)}"


def _sizes(model: ModelRecord | StrategyRecord) -> list[str]:
    """Size, ratio, params and MACs."""
    ratio = "-" if model.compression_ratio is None else f"{model.compression_ratio:.1f}x"
    texts = ((model.size_bytes, bytes_text), (model.params, count_text), (model.macs, count_text))
    size, params, macs = ("-" if value is None else text(value) for value, text in texts)
    return [size, ratio, params, macs]
