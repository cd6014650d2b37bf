"""Runtimes beside one another, in the same rounds."""

from datetime import UTC, datetime
from math import exp, log
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StageError
from stages.benchmark.timing import rounds
from stages.benchmark.timing.across import First, to_first
from stages.benchmark.timing.measuring import Plan
from stages.benchmark.timing.rounds import AGAIN, BASELINE, Participant, Timed
from stages.benchmark.timing.rows import Cell, rows_of
from tests.aliases import Patch

A = Participant("model", "a")
FACTS: dict[str, Any] = {
    "description": {"execution_provider": "cpu"},
    "startup": {"imports_s": 0.1, "load_s": 0.1, "first_s": 0.1},
    "memory": None,
    "energy": {"reason": "no counters"},
}
DRIFT = [1.0, 1.1, 1.3, 0.9, 1.2, 1.0]


def told(model: float, noise: float = 0.0, drift: list[float] = DRIFT) -> dict[Participant, Timed]:
    """Medians of processes on a machine that drifts, with noise between the two baselines."""
    jitter = [exp(noise * (-1) ** i) for i in range(len(drift))]
    times = {A: drift, BASELINE: drift, AGAIN: [d * j for d, j in zip(drift, jitter, strict=True)]}
    scale = {A: model, BASELINE: 1.0, AGAIN: 1.0}
    return {who: Timed([[scale[who] * value] for value in values]) for who, values in times.items()}


def test_drift_that_both_share_is_no_doubt() -> None:
    ratio = to_first(told(2.0), First("first", told(4.0)), "a")
    assert ratio is not None
    assert [ratio[name] for name in ("value", "low", "high")] == pytest.approx([0.5] * 3)
    assert (ratio["verdict"], ratio["runtime"]) == ("faster", "first")


@pytest.mark.parametrize("noisy", ["own", "first"])
def test_what_is_said_holds_against_the_noise_of_both(noisy: str) -> None:
    levels = {"own": 0.0, "first": 0.0} | {noisy: 0.5}
    ratio = to_first(told(2.0, levels["own"]), First("first", told(1.8, levels["first"])), "a")
    assert ratio is not None
    assert log(ratio["value"]) == pytest.approx(log(2.0 / 1.8))
    assert ratio["verdict"] == "inconclusive"


def test_without_a_baseline_nothing_is_claimed() -> None:
    alone = {A: told(2.0)[A]}
    ratio = to_first(alone, First("first", alone), "a")
    assert ratio is not None
    assert (ratio["value"], ratio["verdict"]) == (pytest.approx(1.0), "inconclusive")


def test_one_that_was_not_timed_has_none() -> None:
    assert to_first(told(2.0), First("first", {BASELINE: Timed(), A: Timed()}), "a") is None


class Processes:
    """Stands for the processes, and keeps in which runtime each was."""

    def __init__(self, broken: str = "") -> None:
        self.broken, self.order = broken, list[tuple[str, int]]()

    def __call__(self, spec: dict[str, Any], folder: Path) -> tuple[list[float], dict[str, Any]]:
        self.order.append((spec["runtime"], spec["threads"]))
        if spec["runtime"] == self.broken:
            raise StageError("it broke")
        return [2.0 if spec["runtime"] == "y" else 1.0], FACTS


def cells() -> list[Cell]:
    return [
        Cell(
            {"runtime": runtime, "threads": threads, "batch": 1},
            {who: {"runtime": runtime, "threads": threads} for who in (BASELINE, A, AGAIN)},
            "",
            title=runtime,
        )
        for runtime in "xy"
        for threads in (1, 2)
    ]


def test_runtimes_with_as_many_threads_are_in_the_same_rounds(monkeypatch: Patch) -> None:
    processes = Processes()
    monkeypatch.setattr(rounds, "time_process", processes)
    measured = Plan(rounds=4).measure(cells(), Path(), lambda count, note="": None, lambda: False)
    one, two = processes.order[:24], processes.order[24:]
    assert {threads for _, threads in one} == {1}
    assert {threads for _, threads in two} == {2}
    each = ["".join(runtime for runtime, _ in one[i : i + 6]) for i in range(0, 24, 6)]
    assert each == ["xxxyyy", "yyyxxx"] * 2
    places = [(cell.place["runtime"], cell.place["threads"]) for cell, *_ in measured]
    assert places == [("x", 1), ("x", 2), ("y", 1), ("y", 2)]
    ends = [datetime.fromisoformat(when) for *_, when in measured]
    assert ends[0] == ends[2] < ends[1] == ends[3] <= datetime.now(UTC)
    rows: list[Any] = [rows_of(*one)["a"] for one in measured]
    assert ["to_first" in row for row in rows] == [False, False, True, True]
    assert (rows[2]["to_first"]["value"], rows[2]["to_first"]["verdict"]) == (pytest.approx(2.0), "slower")


def test_a_runtime_that_fails_leaves_the_others_without_a_comparison(monkeypatch: Patch) -> None:
    monkeypatch.setattr(rounds, "time_process", Processes(broken="x"))
    measured = Plan(rounds=4).measure(cells()[::2], Path(), lambda count, note="": None, lambda: False)
    broken, whole = (next(iter(rows_of(*one).values())) for one in measured)
    assert isinstance(broken, dict)
    assert isinstance(whole, dict)
    assert broken["skipped"] == "it broke"
    assert whole["to_first"] is None
