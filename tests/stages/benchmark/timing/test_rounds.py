import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import Interruption, ResourceError, StageError
from pipeline.measure.statistics.ratios import by_round, interval
from stages.benchmark.timing import rounds
from stages.benchmark.timing.percentiles import quantiles
from stages.benchmark.timing.rounds import AGAIN, BASELINE, Failures, Group, Participant, Timed, in_turns, turns
from stages.benchmark.timing.rows import Cell, row, rows_of
from tests.aliases import Patch

RNG = np.random.default_rng(0)
A, B = Participant("model", "a"), Participant("model", "b")
FACTS: dict[str, Any] = {
    "description": {"execution_provider": "CPU"},
    "startup": {"load_s": 1.0},
    "memory": None,
    "energy": {"reason": "no counters"},
}


@pytest.mark.parametrize("count", range(1, 10))
def test_over_as_many_rounds_each_is_at_each_place_once(count: int) -> None:
    orders = np.array(turns(count, count))
    for column in orders.T:
        assert sorted(column) == list(range(count))
    for order in orders:
        assert sorted(order) == list(range(count))


@pytest.mark.parametrize("count", range(2, 10))
def test_each_follows_each_other_equally_often(count: int) -> None:
    neighbours = Counter(pair for order in turns(count, count * (1 + count % 2)) for pair in pairwise(order))
    assert set(neighbours.values()) == {1 + count % 2}
    assert len(neighbours) == count * (count - 1)


@pytest.mark.parametrize("count", range(2, 10))
def test_no_place_is_taken_much_more_often_whatever_the_number_of_rounds(count: int) -> None:
    for number in range(1, 30):
        orders = turns(count, number)
        for one in range(count):
            at = Counter(order.index(one) for order in orders)
            assert max(at.values()) - min(at.get(place, 0) for place in range(count)) <= 1


@pytest.mark.parametrize(("count", "number"), [(3, 6), (3, 3), (4, 4), (4, 6), (7, 7), (7, 14), (8, 2)])
def test_a_machine_that_slows_down_steadily_leaves_the_ratios_as_they_are(count: int, number: int) -> None:
    # Each process takes 1 unit more in logs than the one before; all models are the same.
    times = np.zeros((count, number))
    for i, order in enumerate(turns(count, number)):
        for place, one in enumerate(order):
            times[one, i] = i * count + place
    assert times.mean(axis=1) == pytest.approx(np.full(count, times.mean()))


def test_none_to_time_has_no_orders() -> None:
    assert turns(0, 5) == []


def test_quantiles_are_numpys_in_four_digits() -> None:
    samples = RNG.lognormal(size=5000).tolist()
    found = quantiles(samples)
    assert len(found) == 101
    assert found == sorted(found)
    assert found == pytest.approx(np.quantile(samples, np.linspace(0, 1, 101)).tolist(), rel=5.1e-4)
    assert all(len(re.sub(r"^0+", "", f"{value:.10g}".replace(".", ""))) <= 4 for value in found)


def times_of(*levels: float) -> dict[str, list[list[float]]]:
    return {
        name: [(level * RNG.lognormal(0, 0.05, 50)).tolist() for _ in range(4)]
        for name, level in zip(("model", "baseline", "again"), levels, strict=True)
    }


def test_a_row_has_the_distributions_and_the_ratio_of_each_round() -> None:
    times = times_of(1.0, 2.0, 2.0)
    line: dict[str, Any] = row(times)
    assert line["distribution_ms"]["model"] == quantiles([v for process in times["model"] for v in process])
    both = [v for name in ("baseline", "again") for process in times[name] for v in process]
    assert line["distribution_ms"]["baseline"] == quantiles(both)
    assert line["distribution_ms"]["baseline"][50] == pytest.approx(line["baseline_p50_ms"], rel=1e-3)
    assert len(line["round_ratios"]) == 4
    assert interval(np.log(line["round_ratios"]).tolist()).value == pytest.approx(line["ratio"]["value"])
    own = [np.log(np.median(process)) for process in times["model"]]
    assert line["median_ms"] == interval(own).json
    assert line["round_ms"] == pytest.approx(np.exp(own))
    assert line["median_ms"]["low"] < line["p50_ms"] < line["median_ms"]["high"]
    assert len(json.dumps(line)) < 4200


def test_without_baseline_there_is_one_distribution() -> None:
    line: dict[str, Any] = row({"model": [[1.0, 2.0]]}, "there is no baseline yet")
    assert (list(line["distribution_ms"]), line["round_ratios"]) == (["model"], [])


def test_a_rounds_ratio_is_to_the_geometric_mean_of_both_baselines() -> None:
    assert by_round([3.0, 8.0], [2.0, 1.0], [8.0, 4.0]) == pytest.approx([0.75, 4.0])


def test_rows_say_beside_whom_and_when_and_share_the_noise() -> None:
    levels = {BASELINE: 2.0, A: 1.0, B: 4.0, AGAIN: 2.0}
    timed = {
        who: Timed([[v, v] for v in (level * RNG.lognormal(0, 0.01, 3)).tolist()], [FACTS] * 3)
        for who, level in levels.items()
    }
    rows: dict[str, Any] = rows_of(Cell({"runtime": "x"}, {}, ""), timed, None, "now")
    assert {name: line["beside"] for name, line in rows.items()} == {"a": ["b"], "b": ["a"]}
    assert rows["a"]["noise"] == rows["b"]["noise"]
    assert rows["a"]["ratio"]["value"] == pytest.approx(0.5, rel=0.1)
    assert rows["b"]["ratio"]["value"] == pytest.approx(2.0, rel=0.1)
    assert [rows[name]["measured"] for name in "ab"] == ["now"] * 2
    failures = Failures({"b": StageError("it broke"), "c": StageError("it does not fit")})
    left: dict[str, Any] = rows_of(Cell({"runtime": "x"}, {}, "", failures=failures), timed, None, "now")
    assert left["a"]["beside"] == []
    assert {name: left[name]["skipped"] for name in "bc"} == {"b": "it broke", "c": "it does not fit"}
    assert left["b"]["reasons"] == {"ratio": "it broke"}


class Processes:
    """Stands for the processes: each takes longer than the one before; those whose turn it is to fail do."""

    def __init__(self, failing: dict[str, int] | None = None, error: type[Exception] = StageError) -> None:
        self.failing, self.error, self.started = failing or {}, error, list[str]()

    def __call__(self, spec: dict[str, Any], folder: Path) -> tuple[list[float], dict[str, Any]]:
        self.started.append(spec["model"])
        if self.started.count(spec["model"]) == self.failing.get(spec["model"]):
            raise self.error("it broke")
        return [float(len(self.started))], FACTS


Taken = tuple[dict[Participant, Timed], Failures, int]


def take(monkeypatch: Patch, processes: Processes, *whos: Participant, **options: Any) -> Taken:
    monkeypatch.setattr(rounds, "time_process", processes)
    steps, failures = list[int](), Failures()
    specs = {who: {"model": who.name or who.role, "runtime": "x", "threads": 1} for who in whos}
    interrupted = options.get("interrupted", lambda: False)
    groups = [Group(specs, failures)]
    (timed,) = in_turns(groups, options.get("rounds", 4), Path(), lambda n, note="": steps.append(n), interrupted)
    return timed, failures, sum(steps)


def test_each_round_has_everyone_once(monkeypatch: Patch) -> None:
    processes = Processes()
    timed, failures, steps = take(monkeypatch, processes, BASELINE, A, B, AGAIN)
    assert failures.of == {}
    assert all(len(found.processes) == 4 for found in timed.values())
    assert [sorted(processes.started[i : i + 4]) for i in range(0, 16, 4)] == [["a", "again", "b", "baseline"]] * 4
    assert steps == 16
    # Four rounds of four: the steady drift of these processes favours none.
    assert len({sum(v for process in found.processes for v in process) for found in timed.values()}) == 1


@pytest.mark.parametrize("error", [StageError, ResourceError])
def test_a_model_that_fails_stops_no_other(monkeypatch: Patch, error: type[Exception]) -> None:
    processes = Processes({"a": 2}, error)
    timed, failures, steps = take(monkeypatch, processes, BASELINE, A, B, AGAIN)
    assert {name: str(error) for name, error in failures.of.items()} == {"a": "it broke"}
    assert processes.started.count("a") == 2
    assert [len(timed[who].processes) for who in (BASELINE, B, AGAIN)] == [4, 4, 4]
    assert steps == 16


def test_nothing_is_timed_once_all_models_have_failed(monkeypatch: Patch) -> None:
    processes = Processes({"a": 1, "b": 1})
    _, failures, steps = take(monkeypatch, processes, BASELINE, A, B, AGAIN, rounds=50)
    assert set(failures.of) == {"a", "b"}
    assert len(processes.started) <= 8
    assert steps == 200


@pytest.mark.parametrize("error", [StageError, ResourceError])
def test_the_baseline_fails_for_all(monkeypatch: Patch, error: type[Exception]) -> None:
    processes = Processes({"baseline": 3}, error)
    _, failures, steps = take(monkeypatch, processes, BASELINE, A, B, AGAIN)
    assert {str(failures.error(name)) for name in "ab"} == {"it broke"}
    assert isinstance(failures.error("a"), error)
    assert processes.started[-1] == "baseline"
    assert steps == 16


def test_a_stop_is_no_failure_of_a_model(monkeypatch: Patch) -> None:
    processes = Processes({"a": 1})
    # Ctrl-C reaches the process that times as well: it fails, and by then the stop is known.
    with pytest.raises(Interruption, match="while a process timed"):
        take(monkeypatch, processes, A, B, interrupted=lambda: bool(processes.started))
    processes = Processes()
    with pytest.raises(Interruption, match="between two processes"):
        take(monkeypatch, processes, BASELINE, A, B, AGAIN, interrupted=lambda: len(processes.started) == 5)
    assert len(processes.started) == 5
