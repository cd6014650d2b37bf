from typing import Any

import numpy as np
import pytest

from pipeline.measure.statistics.ratios import interval
from stages.benchmark.timing.figures import described
from stages.benchmark.timing.rounds import Timed

RNG = np.random.default_rng(0)
QUIET = {"reason": "no counters"}


def facts(load: float = 1.0, **changes: Any) -> dict[str, Any]:
    startup = {"imports_s": 0.5, "load_s": load, "first_s": 0.25}
    return {"description": {"execution_provider": "CPU"}, "startup": startup, "memory": None, "energy": QUIET} | changes


def timed_of(loads: list[float], started: int = 0, **changes: Any) -> Timed:
    told = [facts(load, **changes) for load in loads]
    return Timed([[1.0]] * (len(told) - started), told[: len(told) - started], told[len(told) - started :])


def test_startup_is_the_sum_of_its_parts_with_the_interval_of_the_median() -> None:
    line: dict[str, Any]
    line, reasons = described(timed_of([float(i) for i in range(10)], started=5), None, 1, 77)
    assert line["startup"] == {
        "imports_s": 0.5,
        "load_s": 4.5,
        "first_s": 0.25,
        "total_s": {"value": 5.25, "low": 1.75, "high": 8.75},
        "processes": 10,
        "ratio": None,
    }
    assert (line["size_bytes"], list(reasons)) == (77, ["energy"])


def test_few_processes_give_a_startup_without_an_interval() -> None:
    line: dict[str, Any]
    line, reasons = described(timed_of([1.0] * 5), None, 1, None)
    assert line["startup"]["total_s"] == {"value": 1.75, "low": None, "high": None}
    assert reasons["startup"] == "5 of the 6 processes that an interval needs"


def test_startup_is_compared_with_the_baselines_of_the_same_rounds() -> None:
    own, other = (RNG.uniform(1, 2, 6).tolist() for _ in range(2))
    line: dict[str, Any]
    line, _ = described(timed_of(own), timed_of(other), 1, None)
    logs = np.log((np.array(own) + 0.75) / (np.array(other) + 0.75)).tolist()
    assert list(line["startup"]["ratio"].values()) == pytest.approx(list(interval(logs).json.values()))


def test_energy_is_the_median_or_null_with_its_reason() -> None:
    line: dict[str, Any]
    joules = [{"joules": value, "source": "RAPL: package-0"} for value in (3.0, 1.0, 2.0)]
    timed = Timed([[1.0]] * 3, [facts(energy=one) for one in joules])
    line, reasons = described(timed, None, 1, None)
    assert line["energy"] == {"joules": 2.0, "source": "RAPL: package-0"}
    assert "energy" not in reasons
    timed.facts[1]["energy"] = QUIET
    line, reasons = described(timed, None, 1, None)
    assert (line["energy"], reasons["energy"]) == (None, "no counters")


def test_throughput_counts_examples_and_says_what_cannot_be_had() -> None:
    line: dict[str, Any]
    timed = timed_of([1.0] * 3)
    assert described(timed, None, 8, None)[0]["throughput"] is None
    timed.throughput[1] = [{"requests_per_second": value, "seconds": 0.5} for value in (10.0, 30.0, 20.0)]
    timed.throughput[4] = [{"reason": "one at a time"}] * 3
    line, reasons = described(timed, None, 8, None)
    assert line["throughput"] == [
        {"per_second": interval(np.log([80, 240, 160]).tolist()).json, "batch": 8, "concurrency": 1, "seconds": 1.5},
        {"per_second": None, "batch": 8, "concurrency": 4, "seconds": None},
    ]
    assert reasons["throughput"] == "one at a time"
    timed.throughput[1].pop()
    del timed.throughput[4]
    assert described(timed, None, 8, None)[1]["throughput"] == "2 rounds; an interval needs 3"


def test_memory_is_null_where_one_process_did_not_tell() -> None:
    line: dict[str, Any]
    held = {"peak_bytes": 10, "above_imports_bytes": 4}
    line, _ = described(timed_of([1.0] * 3, memory=held), None, 1, None)
    assert line["memory"] == held
    timed = timed_of([1.0] * 3, memory=held)
    timed.facts[2]["memory"] = None
    assert described(timed, None, 1, None)[0]["memory"] is None
