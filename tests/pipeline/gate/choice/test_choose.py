"""The best pair of a model and a runtime: by a figure, among those that keep validation and the limits."""

from typing import Any

import pytest

from pipeline.gate.budget import Budget
from pipeline.gate.choice.choose import choose, chosen_in
from pipeline.gate.choice.choosing import Choosing
from pipeline.records.parts.chosen import Chosen
from pipeline.records.rows import chosen_text, pair_text
from tests.records import bench, interval, record, stage


def scored(kept: float = 1.0, verdict: str = "same decisions") -> dict[str, Any]:
    return {"value": 0.9, "verdict": verdict, "validation_retention": interval((kept, kept - 0.01, kept + 0.01))}


def row(runtime: str, ms: float, reach: float = 0.1, kept: float = 1.0, **changes: Any) -> dict[str, Any]:
    times = (ms, ms - reach, ms + reach)
    return bench(runtime, median=times, **{"score": scored(kept), **changes})


def chosen(*rows: dict[str, Any], by: dict[str, Any] | None = None, budget: dict[str, Any] | None = None) -> Chosen:
    names = [one.pop("strategy", None) for one in rows]
    pairs = list(zip(names, rows, strict=True))
    return choose(pairs, Choosing.model_validate(by or {}), Budget.model_validate(budget or {}))


def test_the_fastest_that_keeps_enough_on_validation_is_taken() -> None:
    rows = row("onnxruntime", 3), row("ncnn", 1, kept=0.96), row("openvino", 2), row("mnn", 0.5, kept=0.9)
    best = chosen(*rows, by={"retention": 0.97})
    assert best.pair is not None
    assert (best.pair.runtime, best.value, best.low, best.unit) == ("openvino", 2, 1.9, "ms")
    assert best.reason == "fastest of the 2 of 4 pairs that keep at least 0.97 on validation"
    assert chosen(*rows).pair == chosen(*rows, budget={"retention": {"min": 0.96}}).pair
    assert chosen(*rows, by={"retention": 0.9}).pair.runtime == "mnn"  # type: ignore[union-attr]
    assert chosen(*rows, budget={"retention": {"min": 0.98}}).retention == 0.98
    assert chosen(*rows).retention == 0.95


def test_one_that_alone_keeps_the_limits_is_called_so() -> None:
    best = chosen(row("onnxruntime", 3), row("ncnn", 1, kept=0.9))
    assert best.reason == "the only one of 2 pairs that keeps at least 0.95 on validation"


@pytest.mark.parametrize(("by", "runtime", "value", "unit"), [
    ("size", "ncnn", 5000, "bytes"), ("memory", "mnn", 30e6, "bytes"), ("startup", "openvino", 100, "ms"),
    ("energy", "onnxruntime", 0.5, "J"),
])  # fmt: skip
def test_it_is_the_least_of_what_is_asked_for(by: str, runtime: str, value: float, unit: str) -> None:
    rows = [
        row("onnxruntime", 1, energy={"joules": 0.5, "source": "rapl"}), row("ncnn", 1, size_bytes=5000),
        row("mnn", 1, peak=30_000_000), row("openvino", 1, startup=(0.1, 0.09, 0.11)),
    ]  # fmt: skip
    best = chosen(*rows, by={"by": by})
    assert best.pair is not None
    assert (best.pair.runtime, best.value, best.unit, best.by) == (runtime, value, unit, by)


def test_pairs_whose_intervals_touch_are_told() -> None:
    best = chosen(row("ncnn", 1.0, strategy="a"), row("mnn", 1.15, strategy="b"), row("onnxruntime", 2))
    assert [pair_text(pair) for pair in best.alike] == ["b in mnn, threads 1, batch 1"]
    assert "cannot be told apart from b in mnn, threads 1, batch 1" in best.reason
    assert chosen_text(best).startswith("a in ncnn, threads 1, batch 1, fastest of the 3 of 3 pairs")
    exact = chosen(row("ncnn", 1.0), row("mnn", 1.0, size_bytes=9_001), by={"by": "size"})
    assert exact.alike == []


@pytest.mark.parametrize(("slower", "changes", "is_apart"), [
    (1.1, {}, True),  # in each round, though the intervals of the medians touch
    (1.1, {"noise": interval((1.0, 0.9, 1.12))}, False),
    (1.1, {"measured": "then"}, False),  # rounds of their own: by the intervals
    (1.1, {"noise": None}, False),
    (1.02, {}, False),  # nearer than the noise of the runtimes
])  # fmt: skip
def test_latencies_of_the_same_rounds_are_compared_in_each(
    slower: float, changes: dict[str, Any], is_apart: bool
) -> None:
    drift = [1.0, 1.3, 0.8, 1.1, 1.0]
    best = row("ncnn", 1.0, 0.2, measured="now", round_ms=drift)
    other = row("mnn", slower, 0.2, **{"measured": "now", "round_ms": [slower * ms for ms in drift], **changes})
    assert [pair.runtime for pair in chosen(best, other).alike] == ([] if is_apart else ["mnn"])


def test_another_model_a_broken_limit_and_a_missing_figure_are_not_taken() -> None:
    rows = [
        row("onnxruntime", 5), row("ncnn", 1, score=scored(verdict="other model")), row("mnn", 2, peak=200_000_000),
        row("openvino", 3, score=None, reasons={"score": "`score` is false"}),
        {"runtime": "litert", "threads": 1, "batch": 1, "skipped": "no"},
    ]  # fmt: skip
    best = chosen(*rows, budget={"memory": {"max": "100 MB"}, "latency": {"max": "5 ms", "runtime": "onnxruntime"}})
    assert best.pair is not None
    assert best.pair.runtime == "onnxruntime"
    assert "the only one of 4 pairs" in best.reason
    assert "and the limits" in best.reason


def test_where_none_keeps_the_limits_the_nearest_is_told_with_what_it_misses() -> None:
    rows = row("ncnn", 1, kept=0.9, peak=200_000_000), row("mnn", 2, kept=0.93), row("openvino", 2, kept=0.92)
    none = chosen(*rows, budget={"memory": {"max": "100 MB"}})
    assert none.pair is None
    assert none.nearest is not None
    assert none.nearest.runtime == "mnn"
    assert none.misses == ["it keeps 0.93 on validation, under 0.95"]
    assert none.reason.startswith(
        "no pair keeps at least 0.95 on validation and the limits; mnn, threads 1, batch 1 comes"
    )
    (slow,) = chosen(row("ncnn", 3), budget={"latency": {"max": "2 ms"}}).misses
    assert slow == "its latency is 3 ms [2.9, 3.1], over 2 ms"
    (cold,) = chosen(row("ncnn", 3, energy=None, reasons={"energy": "no RAPL"}), by={"by": "energy"}).misses
    assert cold == "it has no figure of `energy` (no RAPL)"


def test_latencies_of_the_least_batch_are_compared_unless_another_is_named() -> None:
    rows = row("ncnn", 8, batch=8), row("mnn", 9, batch=8), row("mnn", 2), row("mnn", 1, threads=2)
    assert (chosen(*rows).pair or 0) == chosen(*rows, by={"threads": 2}).pair
    assert chosen(*rows, by={"threads": 1}).value == 2
    assert chosen(*rows, by={"batch": 8}).value == 8
    assert chosen(*rows, by={"batch": 8, "runtime": "mnn"}).value == 9
    assert chosen(*rows, by={"batch": 4}).reason == "there is no row of batch 4 to choose among"


def test_a_run_chooses_among_the_rows_of_its_last_model() -> None:
    early = stage(0, "benchmark.latency", changed=False, latency=[row("torch", 0.1)])
    late = stage(2, "benchmark.latency", changed=False, latency=[row("ncnn", 1)])
    whole = record(early, stage(1, "quantize.static"), late)
    best = chosen_in(whole, Choosing(), Budget())
    assert best is not None
    assert best.pair is not None
    assert (best.pair.runtime, best.pair.strategy) == ("ncnn", None)
    assert chosen_in(whole, None, Budget()) is None
