"""From what processes tell of themselves to figures of a row: start-up, memory, energy, throughput, size."""

from collections.abc import Mapping, Sequence
from math import log
from statistics import median
from typing import Any

from pydantic import JsonValue

from pipeline.measure.statistics.ratios import FEWEST_ROUNDS, interval
from stages.benchmark.timing.percentiles import FEWEST_OF_A_MEDIAN, median_interval
from stages.benchmark.timing.rounds import Timed

Figures = tuple[dict[str, JsonValue], dict[str, str]]
"""Part of a row, and for each figure in it that is null the reason."""


def described(timed: Timed, baseline: Timed | None, batch: Any, size: int | None) -> Figures:
    """What the processes of a model tell of themselves, medians over processes.

    `memory` is the most that a process held, and how much of it came after the imports, null where the system does not
    tell.

    Args:
        timed: of the model.
        baseline: whose start-up is what the model's is compared with.
        batch: examples of an inference.
        size: bytes of what the runtime loads.
    """
    description, memories = timed.facts[-1]["description"], [one["memory"] for one in timed.facts]
    startup, reasons = _startup(timed, baseline)
    energy, no_energy = _energy([one["energy"] for one in timed.facts])
    throughput, no_throughput = _throughput(timed, batch)
    line: dict[str, JsonValue] = {
        "execution_provider": description["execution_provider"],
        "precision": description.get("precision"),
        "version": description.get("version"),
        "size_bytes": size,
        "startup": startup,
        "memory": _medians(memories) if all(memories) else None,
        "energy": energy,
        "throughput": throughput,
    }
    return line, reasons | no_energy | no_throughput


def _startup(timed: Timed, baseline: Timed | None) -> tuple[JsonValue, dict[str, str]]:
    """Seconds until the runtime was imported, from there until the model was loaded, and of the first inference.

    `total_s` is their sum, with the interval of its median, and `ratio` the model's over the baseline's, of the two
    processes of each round.
    """
    totals = _totals(timed)
    line = {**_medians(timed.startups), "total_s": median_interval(totals), "processes": len(totals), "ratio": None}
    if baseline:
        line["ratio"] = interval([log(own / other) for own, other in zip(totals, _totals(baseline), strict=True)]).json
    reason = f"{len(totals)} of the {FEWEST_OF_A_MEDIAN} processes that an interval needs"
    return line, {"startup": reason} if len(totals) < FEWEST_OF_A_MEDIAN else {}


def _totals(timed: Timed) -> list[float]:
    return [sum(one.values()) for one in timed.startups]


def _energy(facts: Sequence[Mapping[str, Any]]) -> tuple[JsonValue, dict[str, str]]:
    """Joules of an inference, of the whole packages of the processors, or why none are told."""
    reasons = [one["reason"] for one in facts if "reason" in one]
    if reasons:
        return None, {"energy": reasons[0]}
    return {"joules": median(one["joules"] for one in facts), "source": facts[0]["source"]}, {}


def _throughput(timed: Timed, batch: Any) -> tuple[JsonValue, dict[str, str]]:
    """Examples a second for each number of requests at a time, or why there are none; None where none is asked for.

    As with latencies the process is the unit: the geometric mean over rounds, with its interval.
    """
    lines: list[JsonValue] = []
    reasons = {}
    for count, loops in timed.throughput.items():
        line: dict[str, Any] = {"per_second": None, "batch": batch, "concurrency": count, "seconds": None}
        if "reason" in loops[0]:
            reasons["throughput"] = loops[0]["reason"]
        else:
            line["per_second"] = interval([log(batch * one["requests_per_second"]) for one in loops]).json
            if len(loops) < FEWEST_ROUNDS:
                reasons.setdefault("throughput", f"{len(loops)} rounds; an interval needs {FEWEST_ROUNDS}")
            line["seconds"] = sum(one["seconds"] for one in loops)
        lines.append(line)
    return lines or None, reasons


def _medians(figures: Sequence[Mapping[str, float]]) -> dict[str, JsonValue]:
    return {name: median(one[name] for one in figures) for name in figures[0]}
