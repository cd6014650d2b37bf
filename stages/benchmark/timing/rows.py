"""From the times of processes to the lines of a record."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from statistics import fmean, median
from typing import Any

from pydantic import JsonValue

from pipeline.errors import ResourceError, StageError
from pipeline.measure.statistics.ratios import FEWEST_ROUNDS, by_round, compare, interval, judge
from stages.benchmark.answers.agreement import Agreement
from stages.benchmark.answers.scores import Score
from stages.benchmark.processes.process import Spec
from stages.benchmark.timing.across import First, Processes, to_first
from stages.benchmark.timing.devices import device_of
from stages.benchmark.timing.figures import described
from stages.benchmark.timing.percentiles import Method, percentiles, quantiles
from stages.benchmark.timing.rounds import AGAIN, BASELINE, Failures, Participant, Timed

Times = dict[str, list[list[float]]]
"""For each of "model", "baseline" and "again": the latencies in milliseconds of each round's process."""


@dataclass(frozen=True)
class Cell:
    """One line of each model's record: where and how, the spec of each process, and why there is no baseline.

    Args:
        place: the runtime, its settings, threads and batch.
        specs: of each process of a round.
        reason: why there is no baseline, if there is none.
        agreements: what the runtime answered beside ONNX Runtime, by the model's name.
        scores: how models score there, by their names.
        baseline: how that scores there.
        failures: of models, at first those that the runtime does not take.
        required: whether a model that fails here fails as a whole.
        method: of percentiles.
        title: what the runtime is called, with its settings and host.
    """

    place: dict[str, JsonValue]
    specs: dict[Participant, Spec]
    reason: str
    agreements: Mapping[str, Agreement] = field(default_factory=dict)
    scores: Mapping[str, Score] = field(default_factory=dict)
    baseline: Score | None = None
    failures: Failures = field(default_factory=Failures)
    required: bool = False
    method: Method = "interpolated"
    title: str = ""


def rows_of(cell: Cell, timed: Processes, first: First | None, measured: str) -> dict[str, JsonValue]:
    """One line of the record for each model, by its name; where it failed, why it was skipped.

    Args:
        cell: what was measured.
        timed: the times; the baseline's figures and the noise are shared.
        first: the runtime that this one is compared with, if there is one.
        measured: when the rounds ended, by which rows of the same rounds are told.
    """
    models = {member.name: timed[member] for member in timed if member.role == "model"}
    shared: Times = {member.role: timed[member].processes for member in (BASELINE, AGAIN) if member in timed}
    failures = {name: error for name in {**models, **cell.failures.of} if (error := cell.failures.error(name))}
    rows: dict[str, JsonValue] = {}
    for name, error in failures.items():
        rows[name] = {**cell.place, "skipped": str(error), "reasons": {"ratio": str(error)}}
    whole = [name for name in models if name not in failures]
    for name in whole:
        agreement, member = cell.agreements.get(name), Participant("model", name)
        size = cell.specs.get(member, {}).get("size_bytes")
        figures, reasons = described(timed[member], timed.get(BASELINE), cell.place.get("batch"), size)
        device, untold = device_of(timed[member].facts)
        times = row({"model": models[name].processes, **shared}, cell.reason, cell.method)
        rows[name] = {
            **cell.place,
            **({"device": device} if device else {}),
            **figures,
            "baseline": _of_baseline(cell, timed),
            **(agreement.json if agreement else {}),
            "rounds": len(models[name].processes),
            **times,
            **({"to_first": to_first(timed, first, name)} if first else {}),
            **_scored(times["reasons"] | reasons | untold, cell.scores.get(name)),
            "measured": measured,
            "beside": [other for other in whole if other != name],
        }
    return rows


def _of_baseline(cell: Cell, timed: Mapping[Participant, Timed]) -> JsonValue:
    """Bytes, start-up, memory and score of the baseline in the same runtime; null where it was not timed."""
    if not (BASELINE in timed and timed[BASELINE].facts):
        return None
    size = cell.specs.get(BASELINE, {}).get("size_bytes")
    figures, _ = described(timed[BASELINE], None, cell.place.get("batch"), size)
    score = {"score": cell.baseline.json} if cell.baseline else {}
    return {**{name: figures[name] for name in ("size_bytes", "startup", "memory")}, **score}


def _scored(reasons: dict[str, str], score: Score | None) -> dict[str, JsonValue]:
    """The score of a line, if it was asked for, and the reasons with why it is null."""
    if score is None:
        return {"reasons": {**reasons}}
    return {"score": score.json, "reasons": {**reasons, **score.reasons}}


def failure(cells: Sequence[Cell], name: str) -> StageError | ResourceError | None:
    """Why a model fails as a whole, and in which runtime: it has no row, or none where one is required."""
    errors = [(cell, error) for cell in cells if (error := cell.failures.error(name))]
    required = [(cell, error) for cell, error in errors if cell.required]
    failed = required or (errors if len(errors) == len(cells) else [])
    if not failed:
        return None
    cell, error = failed[0]
    if cell.title not in str(error):
        error.where = f"{cell.title}: {error.where}" if error.where else cell.title
    return error


def remarks(cell: Cell, failures: Collection[str]) -> Iterator[str]:
    """What is to be warned of: models that were not timed here or answer otherwise; not those that fail as a whole."""
    models = dict.fromkeys([member.name for member in cell.specs if member.role == "model"])
    models |= dict.fromkeys(cell.failures.of)
    where = str(cell.place["runtime"]) + (f" on {cell.place['host']}" if "host" in cell.place else "")
    if (baseline := cell.baseline) and (baseline.is_other or baseline.is_failure):
        yield f"{where}, the baseline: {baseline}"
    for name in models.keys() - failures:
        whose = where + (f", {name}" if len(models) > 1 else "")
        agreement = cell.agreements.get(name)
        if error := cell.failures.error(name):
            yield f"{whose}: not timed: {error}"
            continue
        if agreement and not agreement.agrees:
            yield f"{whose}: {agreement}"
        if (score := cell.scores.get(name)) and (score.is_other or score.is_failure):
            yield f"{whose}: {score}"


def row(times: Times, reason: str = "", method: Method = "interpolated") -> dict[str, Any]:
    """One line of the record.

    Args:
        times: see `Times`; without "baseline" and "again" there are absolute figures alone.
        reason: why there is no baseline.
        method: of percentiles.
    """
    samples = [value for process in times["model"] for value in process]
    figures, reasons = percentiles(samples, method)
    medians = {name: [median(process) for process in rounds] for name, rounds in times.items()}
    line: dict[str, Any] = {
        "samples": len(samples),
        **figures,
        "median_ms": interval([log(value) for value in medians["model"]]).json,
        "round_ms": medians["model"],
        "percentiles": method,
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
