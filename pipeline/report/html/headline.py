"""The head of a run's page: the verdict in words, the limits, and the figures that count."""

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.base.formatting import bytes_text, count_text, interval_text
from pipeline.records.figures import runtime_of
from pipeline.records.parts.gates import GateRecord
from pipeline.records.parts.models import ModelRecord
from pipeline.records.record import Record
from pipeline.report.columns import counts_text, latency_ratios
from pipeline.report.html.text import count_of, joined, span_text, times_text
from pipeline.report.html.views import GateView, Judgement, Tile

WORDS = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive", "skipped": "Skipped"}
PAST = {"pass": "kept", "fail": "not kept", "inconclusive": "undecided", "skipped": "not looked at"}
SENTENCES = {
    "pass": "The model keeps to its budget.",
    "fail": "The model does not keep to its budget.",
    "inconclusive": "There is too little evidence to say whether the model keeps to its budget.",
}


def judgement(record: Record) -> Judgement:
    """The verdict of a run: pass, fail, inconclusive, none, failed or stopped."""
    gates = [gate_view(gate) for gate in record.gates]
    if record.failure:
        stopped = record.failure.is_stop
        place = f" in {record.failure.where}" if record.failure.where else ""
        word = "Stopped" if stopped else "The run failed"
        sentence = f"The run was stopped{place}; it can be resumed." if stopped else f"It ended{place}, so no verdict."
        return Judgement("stopped" if stopped else "failed", word, sentence, gates)
    if record.verdict is None:
        why = "No budget was set, so nothing was judged." if not gates else "The limits give no verdict."
        return Judgement("none", "No verdict", why, gates)
    several = len({gate.verdict for gate in record.gates}) > 1
    sentence = SENTENCES[record.verdict] + (f" Of {_tally(record.gates)}." if several else "")
    return Judgement(record.verdict, WORDS[record.verdict], sentence, gates)


def gate_view(gate: GateRecord) -> GateView:
    """A limit of the budget in words."""
    word = WORDS[gate.verdict] + counts_text(gate)
    return GateView(gate.name.replace("_", " "), gate.verdict, word, gate.message, gate.fix)


def tiles(record: Record) -> list[Tile]:
    """Size, retention, latency, parameters, MACs: from the baseline to the last model."""
    first, last = record.baseline, record.final
    if first is None or last is None:
        return []

    def change(name: str, key: str, text: Callable[[float], str]) -> Tile:
        before, now = getattr(first, key), getattr(last, key)
        if before is None or now is None:
            return Tile(name, "-", note=last.macs_reason or first.macs_reason or "")
        if last is first:
            return Tile(name, text(now), note="of the baseline")
        return Tile(name, text(now), text(before), times_text(before / now) if now else "")

    size, retention = change("Size of the file", "size_bytes", bytes_text), _retention(first, last)
    counts = [change("Parameters", "params", count_text), change("MACs", "macs", count_text)]
    return [size, retention, *_latency(record), *counts]


def setting_of(row: Mapping[str, Any]) -> str:
    """Where a latency was measured: onnxruntime, threads 1, batch 8."""
    return f"{runtime_of(row)}, threads {row.get('threads', '-')}, batch {row.get('batch', '-')}"


def verdict_of(row: Mapping[str, Any]) -> str | None:
    """Whether a latency row that has a ratio is faster, slower or the same, where it says so."""
    return row["ratio"].get("verdict") if isinstance(row["ratio"], dict) else None


def _retention(first: ModelRecord, last: ModelRecord) -> Tile:
    if last is first:
        return Tile("Score", f"{last.score:.4f}", note="of the baseline")
    before = f"score {first.score:.4f}"
    if last.retention is None:
        return Tile("Score", f"{last.score:.4f}", before, last.retention_reason or "retention is not defined")
    drop = f"; drop {interval_text(last.drop)}" if last.drop else ""
    note = f"{span_text(last.retention)}; score {first.score:.4f} → {last.score:.4f}{drop}"
    return Tile("Retention of the score", f"{last.retention.value:.3f}", note=note)


def _latency(record: Record) -> list[Tile]:
    rows = latency_ratios(record)
    if not rows:
        return []
    row, ratio = rows[0]
    more = f"{count_of(len(rows) - 1, 'more setting')} below" if len(rows) > 1 else ""
    notes = verdict_of(row), span_text(ratio, 2), setting_of(row), more
    return [Tile("Latency ratio", f"{ratio['value']:.2f}", note="; ".join(filter(None, notes)))]


def _tally(gates: list[GateRecord]) -> str:
    """3 limits, 2 are kept and 1 is not looked at."""
    counts = {verdict: sum(gate.verdict == verdict for gate in gates) for verdict in PAST}
    clauses = [f"{n} {'is' if n == 1 else 'are'} {PAST[verdict]}" for verdict, n in counts.items() if n]
    return f"{count_of(len(gates), 'limit')}, {joined(clauses)}"
