"""From the times of processes to the lines of a record."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean, median

from pydantic import JsonValue

from stages.benchmark.ratios import FEWEST_ROUNDS, by_round, compare, judge, percentiles, quantiles
from stages.benchmark.rounds import AGAIN, BASELINE, Failures, Participant, Spec, Timed

Times = dict[str, list[list[float]]]
"""For each of "model", "baseline" and "again": the latencies in milliseconds of each round's process."""


@dataclass(frozen=True)
class Cell:
    """One line of each model's record: where and how, the spec of each process, and why there is no baseline."""

    place: dict[str, JsonValue]
    specs: dict[Participant, Spec]
    reason: str


def rows_of(cell: Cell, timed: Mapping[Participant, Timed], failures: Failures) -> dict[str, JsonValue]:
    """One line of the record for each model that did not fail, by its name.

    Args:
        cell: what was measured.
        timed: the times; the baseline's figures and the noise are shared.
        failures: of models.
    """
    measured = datetime.now(UTC).isoformat(timespec="seconds")
    whole = [member for member in timed if member.role == "model" and not failures.out(member)]
    shared: Times = {member.role: timed[member].processes for member in (BASELINE, AGAIN) if member in timed}
    rows: dict[str, JsonValue] = {}
    for member in whole:
        beside: list[JsonValue] = [other.name for other in whole if other != member]
        own = timed[member]
        rows[member.name] = {
            **cell.place,
            "execution_provider": own.providers[-1],
            "rounds": len(own.processes),
            **row({"model": own.processes, **shared}, cell.reason),
            "measured": measured,
            "beside": beside,
        }
    return rows


def row(times: Times, reason: str = "") -> dict[str, JsonValue]:
    """One line of the record.

    Args:
        times: see `Times`; without "baseline" and "again" there are absolute figures alone.
        reason: why there is no baseline.
    """
    samples = [value for process in times["model"] for value in process]
    figures, reasons = percentiles(samples)
    medians = {name: [median(process) for process in rounds] for name, rounds in times.items()}
    line: dict[str, JsonValue] = {
        "samples": len(samples),
        **figures,
        "mean_ms": fmean(samples),
        "min_ms": min(samples),
        "ratio": None,
        "noise": None,
        "baseline_p50_ms": None,
        "round_ratios": [],
    }
    distributions: dict[str, JsonValue] = {"model": [*quantiles(samples)]}
    if reason:
        reasons |= dict.fromkeys(("ratio", "noise", "baseline_p50_ms"), reason)
    else:
        ratio, noise = compare(medians["model"], medians["baseline"], medians["again"])
        line["ratio"] = {**ratio.json, "verdict": judge(ratio, noise)}
        line["noise"] = noise.json
        reference = [value for name in ("baseline", "again") for process in times[name] for value in process]
        line["baseline_p50_ms"] = median(reference)
        line["round_ratios"] = [*by_round(medians["model"], medians["baseline"], medians["again"])]
        distributions["baseline"] = [*quantiles(reference)]
        if ratio.low is None:
            reasons["ratio"] = f"{len(medians['model'])} rounds; an interval needs {FEWEST_ROUNDS}"
    return {**line, "distribution_ms": distributions, "reasons": {**reasons}}
