from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StageError
from stages.benchmark.timing import rounds
from stages.benchmark.timing.measuring import Plan
from stages.benchmark.timing.rounds import AGAIN, BASELINE, Participant, Timed
from stages.benchmark.timing.rows import Cell
from tests.aliases import Patch

A, B = Participant("model", "a"), Participant("model", "b")


class Processes:
    """Stands for the processes, and keeps what they were told."""

    def __init__(self) -> None:
        self.specs: list[dict[str, Any]] = []

    def __call__(self, spec: dict[str, Any], folder: Path) -> tuple[list[float], dict[str, Any]]:
        self.specs.append(spec)
        if spec["model"] == "broken":
            raise StageError("it broke")
        if "concurrency" in spec and spec["model"] == "fragile":
            raise StageError("two are too many")
        if "concurrency" in spec:
            return [], {"throughput": {"requests_per_second": 10.0 * spec["concurrency"], "seconds": 1.0}}
        return [1.0], {"startup": {"load_s": float(len(self.specs))}}

    def told(self, **what: Any) -> int:
        return sum(what.items() <= spec.items() for spec in self.specs)


def cell_of(*whos: Participant) -> Cell:
    how = {"runtime": "x", "threads": 1, "warmup": 20, "iterations": None}
    return Cell({}, {who: {"model": who.name or who.role, **how} for who in whos}, "")


def measured(patch: Patch, plan: Plan, cell: Cell) -> tuple[Mapping[Participant, Timed], Processes]:
    processes, steps = Processes(), list[int]()
    patch.setattr(rounds, "time_process", processes)
    ((_, timed, *_),) = plan.measure([cell], Path(), lambda count, note="": steps.append(count), lambda: False)
    assert sum(steps) == plan.processes(cell)
    return timed, processes


def test_further_processes_start_the_baseline_and_each_model_once_a_round(monkeypatch: Patch) -> None:
    timed, processes = measured(monkeypatch, Plan(rounds=4, startups=6), cell_of(BASELINE, A, B, AGAIN))
    assert {who: len(found.startups) for who, found in timed.items()} == {BASELINE: 10, A: 10, B: 10, AGAIN: 4}
    assert {who: len(found.processes) for who, found in timed.items()} == dict.fromkeys(timed, 4)
    assert processes.told(warmup=0, iterations=1) == 6 * 3
    assert processes.told(warmup=20, iterations=None) == 4 * 4
    assert timed[A].startups[:4] == [one["startup"] for one in timed[A].facts]


def test_without_them_there_are_the_rounds_alone(monkeypatch: Patch) -> None:
    timed, processes = measured(monkeypatch, Plan(rounds=4), cell_of(BASELINE, A, AGAIN))
    assert (len(processes.specs), len(timed[A].startups), timed[A].throughput) == (12, 4, {})


def test_throughput_is_of_the_models_alone(monkeypatch: Patch) -> None:
    timed, processes = measured(monkeypatch, Plan(3, concurrency=(1, 4)), cell_of(BASELINE, A, B, AGAIN))
    assert [processes.told(concurrency=count) for count in (1, 4)] == [6, 6]
    told = {count: [one["requests_per_second"] for one in found] for count, found in timed[B].throughput.items()}
    assert told == {1: [10.0] * 3, 4: [40.0] * 3}
    assert timed[BASELINE].throughput == {}


def test_what_failed_is_not_started_again(monkeypatch: Patch) -> None:
    cell = cell_of(BASELINE, A, AGAIN)
    cell.specs[A]["model"] = "broken"
    _, processes = measured(monkeypatch, Plan(2, 2, (3,)), cell)
    assert processes.told(model="broken") == 1
    assert str(cell.failures.error("a")) == "it broke"


def test_one_that_was_timed_and_breaks_under_requests_has_no_throughput_alone(monkeypatch: Patch) -> None:
    cell = cell_of(A, B)
    cell.specs[A]["model"] = "fragile"
    timed, processes = measured(monkeypatch, Plan(3, concurrency=(2,)), cell)
    assert (timed[A].throughput, len(timed[A].processes)) == ({2: [{"reason": "two are too many"}]}, 3)
    assert len(timed[B].throughput[2]) == 3
    assert cell.failures.error("a") is None
    assert processes.told(model="fragile", concurrency=2) == 1


@pytest.mark.parametrize("plan", [Plan(3), Plan(3, 7), Plan(2, 8, (1, 2, 3))])
def test_without_a_baseline_all_are_counted_too(monkeypatch: Patch, plan: Plan) -> None:
    measured(monkeypatch, plan, cell_of(A, B))
