"""Gates on what benchmark stages measure: latency as a ratio or in milliseconds, memory, start-up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Any, Literal

from pipeline.base.estimate import Estimate
from pipeline.base.formatting import bytes_text, milliseconds_text
from pipeline.gate.finding import CASES, Gate, at_most, interval, place
from pipeline.gate.limits import MostLatency, MostMemory, MostStartup, RowLimit
from pipeline.gate.measured import KNOBS, is_quantized
from pipeline.measure.statistics.samples import POWER, reach_ratio
from pipeline.records.parts.gates import GateRecord
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Record
from pipeline.records.rows import (
    Row,
    changed_after,
    estimate,
    is_other_model,
    median_ms,
    peak_bytes,
    place_of,
    reason_of,
    startup_ms,
)

NO_LATENCY = "Add `- {use: benchmark.latency}` as the last stage"
ANEW = "Run it again with `{}` in the budget, which has it measured in the run"
OTHER_MODEL = "its answers are those of another model, so no other figure of it counts"
TELL = "Leave the runtime out, or look at `agreement` and `score` of its row"
MORE = "Have {place} measure it: raise its `rounds` or `seconds`, or measure where the system tells it"
ELSEWHERE = "take another runtime"
SMALLER, FASTER = f"{ELSEWHERE}, {KNOBS['params']}", KNOBS["macs"]


@dataclass(frozen=True)
class Quantity:
    """What a limit is on: how a row tells of it, and how that is said.

    Args:
        name: of the limit's kind, such as memory.
        key: of the row's reasons, for a row without the figure.
        read: the figure of a row, None where it has none.
        limit: in the unit of the figure.
        text: the figure in words.
        unit: of the limit in the record; None for a ratio.
        knob: what makes it less.
    """

    name: str
    key: str
    read: Callable[[Row], Estimate | None]
    limit: float
    text: Callable[[Estimate], str]
    unit: Literal["ms", "bytes"] | None
    knob: str


def quantity(limit: RowLimit) -> Quantity:
    """What a limit is on."""
    if isinstance(limit, MostMemory):
        return Quantity("memory", "memory", peak_bytes, float(limit.max), _bytes, "bytes", SMALLER)
    if isinstance(limit, MostStartup):
        return Quantity("startup", "startup", startup_ms, limit.ms, milliseconds_text, "ms", SMALLER)
    if isinstance(limit, MostLatency) and limit.ms is not None:
        key = limit.key
        read = median_ms if key == "p50_ms" else lambda row: estimate(row.get(key))
        return Quantity("latency", key, read, limit.ms, milliseconds_text, "ms", f"{ELSEWHERE}, {FASTER}")
    return Quantity("latency", "ratio", ratio, float(limit.model_dump()["max"]), _ratio_text, None, FASTER)


def gate_of(limit: RowLimit) -> Gate:
    """The gate of a limit, such as latency.ncnn.threads1.p90; of one on the ratios of all rows latency."""
    of = quantity(limit)
    return Gate(".".join([of.name, *limit.words]), of.limit, unit=of.unit)


def rows_keep(limit: RowLimit, record: Record) -> GateRecord:
    """Whether every row that a limit is on keeps it; its interval decides where it has one, else the figure."""
    of, gate = quantity(limit), gate_of(limit)
    stage = _stage(limit, record)
    if stage is None:
        return _unmeasured(gate, limit, record)
    if stage.cached:
        return gate.skipped(f"{place(stage)} measured it in an earlier run", ANEW.format(of.name))
    if later := changed_after(record, stage, exported=limit.runtime is None):
        return gate.skipped(f"it was measured before {place(later)} changed the model", NO_LATENCY)
    rows = [row for row in stage.latency if limit.is_of(row)]
    if other := next((row for row in rows if is_other_model(row)), None):
        return gate.failed(f"{of.name} does not count ({place_of(other)}): {OTHER_MODEL}", TELL)
    return _judged(gate, of, [(row, of.read(row)) for row in rows], stage, record)


def ratio(row: Row) -> Estimate | None:
    """The ratio of a row with its interval; None where there is no whole one."""
    value = row.get("ratio")
    figures = [value.get(name) for name in ("value", "low", "high")] if isinstance(value, dict) else [None]
    if not all(isinstance(figure, int | float) and figure > 0 for figure in figures):
        return None
    return estimate(value)


def _stage(limit: RowLimit, record: Record) -> StageRecord | None:
    """The last stage with rows that the limit is on."""
    return next((stage for stage in reversed(record.stages) if any(map(limit.is_of, stage.latency))), None)


def _unmeasured(gate: Gate, limit: RowLimit, record: Record) -> GateRecord:
    """That no stage has rows that the limit is on, and where there are some."""
    places = list(dict.fromkeys(place_of(row) for stage in record.stages for row in stage.latency))
    if not places:
        return gate.skipped("no stage measured it", NO_LATENCY)
    fix = f"Limit what was measured, which is {' and '.join(places)}, or have a run measure it there"
    return gate.skipped(f"no row is of {limit.place}", fix)


def _judged(
    gate: Gate,
    of: Quantity,
    rows: Sequence[tuple[dict[str, Any], Estimate | None]],
    stage: StageRecord,
    record: Record,
) -> GateRecord:
    sure = [(row, figure) for row, figure in rows if figure]
    verdicts = [at_most(figure, gate.limit) for _, figure in sure]
    if "fail" in verdicts:
        row, figure = max(sure, key=lambda one: one[1].low)
        return gate.decided("fail", figure, _text(of, row, figure), _less(of, figure, record))
    if len(sure) < len(rows):
        row = next(row for row, figure in rows if figure is None)
        why = reason_of(row, of.key) or f"there is no {'ratio' if of.key == 'ratio' else of.name}"
        return gate.skipped(f"{place_of(row)}: {why}", _remedy(of, row, stage))
    row, figure = max(sure, key=lambda one: one[1].high)
    text = _text(of, row, figure)
    if figure.high <= gate.limit:
        return gate.decided("pass", figure, text)
    return gate.decided("inconclusive", figure, text, _more_rounds(of, row, figure, stage, record))


def limit_text(of: Quantity) -> str:
    """A limit in words: 0.5, or 5 ms."""
    return f"{of.limit:g}" if of.unit is None else of.text(Estimate(value=of.limit, low=of.limit, high=of.limit))


def _text(of: Quantity, row: Row, figure: Estimate) -> str:
    """What was found, where, and the limit."""
    percentile = f" p{of.key[1:-3].replace('999', '99.9')}" if of.key.endswith("_ms") else ""
    return f"{of.name}{percentile} is {of.text(figure)} ({place_of(row)}), the limit {limit_text(of)}"


def _less(of: Quantity, figure: Estimate, record: Record) -> str:
    fix = f"The model takes {figure.value / of.limit:.2f} times what the limit allows"
    if of.key == "ratio" and record.baseline and record.final and record.baseline.macs and record.final.macs:
        fix += f", with {record.final.macs / record.baseline.macs:.2f} of the baseline's MACs"
    return f"{fix}: {_knobs(of, record)}"


def _knobs(of: Quantity, record: Record) -> str:
    """What to turn to make it less."""
    return of.knob if is_quantized(record) else f"quantize to int8, {of.knob}"


def _more_rounds(of: Quantity, row: Row, figure: Estimate, stage: StageRecord, record: Record) -> str:
    """How many rounds would decide: on the log scale the interval narrows with the root of their number."""
    rounds_of = _knob(stage)
    margin = abs(log(figure.value / of.limit))
    rounds = row.get("rounds")
    if margin < 1e-6 or not isinstance(rounds, int) or of.name == "startup":
        return f"Raise {rounds_of} on a quiet machine, or make it less: {_knobs(of, record)}"
    reach = log(figure.value / figure.low) if figure.value > of.limit else log(figure.high / figure.value)
    needed = max(ceil(rounds * (reach_ratio(POWER) * reach / margin) ** 2), rounds + 1)
    then = "passes" if figure.value <= of.limit else "fails"
    return f"Raise {rounds_of} from {rounds:,} to about {needed:,}: a model as fast as this one then {then} in {CASES}"


def _knob(stage: StageRecord) -> str:
    """What more rounds are set with: an effort decides them too, and both at once are refused."""
    return f"`rounds`{', in place of `effort`,' if stage.settings.get('effort') else ''} of {place(stage)}"


def _remedy(of: Quantity, row: Row, stage: StageRecord) -> str:
    if row.get("skipped"):
        return f"Have {place(stage)} measure what that runtime takes, or limit one that runs the model"
    if of.key != "ratio":
        return MORE.format(place=place(stage))
    if isinstance(row.get("ratio"), dict):
        return f"Raise {_knob(stage)}: an interval needs some"
    return f"Have {place(stage)} measure in a runtime that runs the baseline too, such as onnxruntime"


def _ratio_text(figure: Estimate) -> str:
    return f"{interval(figure)} of the baseline's"


def _bytes(figure: Estimate) -> str:
    return bytes_text(figure.value)
