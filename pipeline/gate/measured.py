"""Gates on what is measured without test examples: size, counts, export parity, latency."""

from collections.abc import Sequence
from decimal import Decimal
from math import ceil, log
from typing import Any

from pipeline.base.estimate import Estimate
from pipeline.gate.budget import Most, MostBytes, MostRatio
from pipeline.gate.expected import Expected
from pipeline.gate.finding import CASES, Gate, at_most, interval, place
from pipeline.measure.statistics.samples import POWER, reach_ratio
from pipeline.records.figures import runtime_of
from pipeline.records.parts.gates import GateRecord
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Record

WORDS = {"size_bytes": "file", "params": "number of parameters", "macs": "number of MACs"}
KNOBS = {
    "size_bytes": "quantize to int8, prune more, or distill into a smaller student",
    "params": "prune more, or distill into a smaller student",
    "macs": "prune more channels, or distill into a smaller student",
}
NO_LATENCY = "Add `- {use: benchmark.latency}` as the last stage"
ANEW = "Run it again with `latency` in the budget, which has it measured in the run"


def exact(name: str, limit: MostBytes | Most, record: Record, expected: Expected | None) -> GateRecord:
    """Whether a count of the last model is at most the limit, or at most a factor of another model's count."""
    value = getattr(record.final, name)
    if value is None:  # of these, MACs alone
        reason = str(record.final and record.final.macs_reason)
        return Gate(name, float(limit.max), limit.of).skipped(reason, "Limit `params` or `latency` in its place")
    other = {"baseline": record.baseline, "expected": expected, None: None}[limit.of]
    if limit.of and other is None:
        fix = "Write the file: shrink expect RUN" if limit.of == "expected" else "Run it again"
        return Gate(name, float(limit.max), limit.of).skipped(f"there is no {limit.of} model", fix)
    most = float(limit.max)
    text = f"{name} is {value:,}, the limit {limit.max:,}"
    if other is not None:
        count = getattr(other, name)
        if count is None:
            fix = "Limit `params` or `latency` in its place"
            return Gate(name, float(limit.max), limit.of).skipped(f"the {limit.of} model's MACs are not known", fix)
        most = int(Decimal(str(limit.max)) * count)  # as floats, 0.29 of 100 is less than 29
        whose = "the baseline's" if limit.of == "baseline" else "the committed model's"
        text = f"{name} is {value:,}, the limit {most:,}, which is {limit.max:g} of {whose} {count:,}"
    return Gate(name, most, limit.of).exact(value, text, _shrink_more(name, value, most, record))


def parity(limit: MostRatio, record: Record) -> GateRecord:
    """Whether the exported file gives what the torch model gave, as the last stage that exported has found."""
    gate = Gate("parity", limit.max)
    for stage in reversed(record.stages):
        report = stage.reports.get("parity")
        difference = report.get("largest_difference") if isinstance(report, dict) else None
        if isinstance(difference, int | float):
            text = f"export parity: outputs differ by {difference:.2g} at most, the limit {limit.max:g}"
            fix = f"{place(stage)}: try another `opset`, or look for operators that depend on the batch"
            return gate.exact(float(difference), text, fix)
    return gate.skipped("no stage exported", "Add `- {use: export.onnx}` to stages")


def latency(limit: MostRatio, record: Record) -> GateRecord:
    """Whether the last model takes at most so much of the baseline's time, in every row that was measured."""
    stage, gate = record.latency_stage, Gate("latency", limit.max)
    if stage is None:
        return gate.skipped("no stage measured it", NO_LATENCY)
    if stage.cached:
        return gate.skipped(f"{place(stage)} measured it in an earlier run", ANEW)
    later = next((other for other in record.stages if other.position > stage.position and other.changed), None)
    if later:
        return gate.skipped(f"it was measured before {place(later)} changed the model", NO_LATENCY)
    rows = [(row, _ratio(row)) for row in stage.latency]
    sure = [(row, ratio) for row, ratio in rows if ratio]
    verdicts = [at_most(ratio, limit.max) for _, ratio in sure]
    if "fail" not in verdicts and len(sure) < len(rows):
        row = next(row for row, ratio in rows if ratio is None)
        return gate.skipped(f"{_cell(row)}: {_reason(row)}", _why_no_ratio(row, stage))
    if "fail" in verdicts:
        return _too_slow(gate, sure, record)
    row, ratio = max(sure, key=lambda one: one[1].high)
    text = f"latency is {interval(ratio)} of the baseline's ({_cell(row)}), the limit {limit.max:g}"
    if ratio.high <= limit.max:
        return gate.decided("pass", ratio, text)
    return gate.decided("inconclusive", ratio, text, _more_rounds(row, ratio, limit.max, stage))


def _too_slow(gate: Gate, rows: Sequence[tuple[dict[str, Any], Estimate]], record: Record) -> GateRecord:
    limit = gate.limit
    row, ratio = max(rows, key=lambda one: one[1].low)
    text = f"latency is {interval(ratio)} of the baseline's ({_cell(row)}), the limit {limit:g}"
    fix = f"The model takes {ratio.value / limit:.2f} times what the limit allows"
    if record.baseline and record.final and record.baseline.macs and record.final.macs:
        fix += f", with {record.final.macs / record.baseline.macs:.2f} of the baseline's MACs"
    return gate.decided("fail", ratio, text, f"{fix}: {KNOBS['macs']}, or quantize to int8")


def _more_rounds(row: dict[str, Any], ratio: Estimate, limit: float, stage: StageRecord) -> str:
    """How many rounds would decide: on the log scale the interval narrows with the root of their number."""
    knob = f"`rounds` of {place(stage)}"
    margin = abs(log(ratio.value / limit))
    rounds = row.get("rounds")
    if margin < 1e-6 or not isinstance(rounds, int):
        return f"Raise {knob} on a quiet machine, or make the model faster: {KNOBS['macs']}"
    reach = log(ratio.value / ratio.low) if ratio.value > limit else log(ratio.high / ratio.value)
    needed = max(ceil(rounds * (reach_ratio(POWER) * reach / margin) ** 2), rounds + 1)
    then = "passes" if ratio.value <= limit else "fails"
    return f"Raise {knob} from {rounds:,} to about {needed:,}: a model as fast as this one then {then} in {CASES}"


def _ratio(row: dict[str, Any]) -> Estimate | None:
    """The ratio of a row with its interval; None where there is no whole one."""
    ratio = row.get("ratio")
    figures = [ratio.get(name) for name in ("value", "low", "high")] if isinstance(ratio, dict) else [None]
    if not all(isinstance(figure, int | float) and figure > 0 for figure in figures):
        return None
    return Estimate.model_validate(dict(zip(("value", "low", "high"), figures, strict=True)))


def _reason(row: dict[str, Any]) -> str:
    """Why a row has no ratio with an interval, as the stage says it."""
    reasons = row.get("reasons")
    return str(reasons["ratio"]) if isinstance(reasons, dict) and "ratio" in reasons else "there is no ratio"


def _why_no_ratio(row: dict[str, Any], stage: StageRecord) -> str:
    if isinstance(row.get("ratio"), dict):
        return f"Raise `rounds` of {place(stage)}: an interval needs some"
    return f"Have {place(stage)} measure in a runtime that runs the baseline too, such as onnxruntime"


def _cell(row: dict[str, Any]) -> str:
    """onnxruntime, threads 1, batch 1."""
    return f"{runtime_of(row)}, threads {row.get('threads')}, batch {row.get('batch')}"


def _shrink_more(name: str, value: int, limit: float, record: Record) -> str:
    """By which factor the last model is over, and where to turn the knob."""
    over = f"The {WORDS[name]} is {value / limit:.2f} times the limit" if limit else "Nothing keeps a limit of 0"
    steps = zip([record.baseline, *record.stages], record.stages, strict=False)
    counts = [(getattr(before, name), getattr(stage, name), stage) for before, stage in steps if before]
    shrunk = [(old / new, stage) for old, new, stage in counts if old and new and new < old]
    if not shrunk:
        return f"{over}, and no stage makes it smaller: {KNOBS[name]}"
    factor, least = min(shrunk, key=lambda pair: pair[0])
    return f"{over}; {place(least)} shrinks it least, by a factor of {factor:.2f}: turn it up, or {KNOBS[name]}"
