"""Limits on latency, memory and start-up: of all rows, or of those of a runtime, decided by their intervals."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.gate.budget import Budget
from pipeline.gate.judge import has_limits, judge
from pipeline.records.parts.gates import GateRecord
from pipeline.records.record import Failure, Record
from tests.records import bench, model, record, stage


def judged(limits: dict[str, Any], *rows: dict[str, Any], **changes: Any) -> GateRecord:
    """The one gate of a run whose benchmark has these rows."""
    timed = stage(1, "benchmark.latency", changed=False, latency=list(rows), **changes)
    return one(limits, record(stage(), timed, baseline=model()))


def one(limits: dict[str, Any], run: Record) -> GateRecord:
    (gate,) = judge(Budget.model_validate(limits), run)
    return gate


NCNN = bench("ncnn", median=(4.0, 3.8, 4.2), p90_ms=4.9, peak=48_000_000, startup=(0.21, 0.2, 0.22))
ORT = bench("onnxruntime", median=(2.0, 1.9, 2.1), p90_ms=2.2, peak=90_000_000, startup=(0.3, 0.29, 0.31))


@pytest.mark.parametrize(("limits", "verdict", "name", "limit", "unit", "said"), [
    ({"latency": {"max": "4.2 ms"}}, "pass", "latency.p50", 4.2, "ms", "is 4 ms [3.8, 4.2] (ncnn, threads 1, batch 1)"),
    ({"latency": {"max": "4.1 ms"}}, "inconclusive", "latency.p50", 4.1, "ms", "the limit 4.1 ms"),
    ({"latency": {"max": "3.7 ms"}}, "fail", "latency.p50", 3.7, "ms", "ncnn"),
    ({"latency": {"max": "2100 us", "runtime": "onnxruntime"}}, "pass", "latency.onnxruntime.p50", 2.1, "ms", "2 ms"),
    ({"latency": {"max": "5 ms", "percentile": 90, "runtime": "ncnn", "threads": 1, "batch": 1}}, "pass",
     "latency.ncnn.threads1.batch1.p90", 5, "ms", "latency p90 is 4.9 ms (ncnn"),
    ({"latency": {"max": "4.8 ms", "percentile": 90}}, "fail", "latency.p90", 4.8, "ms", "4.9 ms"),
    ({"latency": {"max": 0.6, "runtime": "ncnn"}}, "pass", "latency.ncnn", 0.6, None, "of the baseline's"),
    ({"memory": {"max": "60 MB", "runtime": "ncnn"}}, "pass", "memory.ncnn", 60e6, "bytes", "48.0 MB"),
    ({"memory": {"max": "60 MB"}}, "fail", "memory", 60e6, "bytes", "90.0 MB (onnxruntime"),
    ({"startup": {"max": "0.31 s"}}, "pass", "startup", 310, "ms", "300 ms [290, 310]"),
    ({"startup": {"max": "300 ms"}}, "inconclusive", "startup", 300, "ms", "the limit 300 ms"),
    ({"startup": {"max": "215 ms", "runtime": "ncnn"}}, "inconclusive", "startup.ncnn", 215, "ms", "210 ms [200, 220]"),
])  # fmt: skip
def test_the_interval_of_the_rows_that_a_limit_is_on_decides(
    limits: Any, verdict: str, name: str, limit: float, unit: str, said: str
) -> None:
    gate = judged(limits, ORT, NCNN)
    assert (gate.verdict, gate.name, gate.unit) == (verdict, name, unit)
    assert gate.limit == pytest.approx(limit)
    assert said in gate.message
    assert bool(gate.fix) == (verdict != "pass")


@pytest.mark.parametrize(
    "limits", [{"latency": {"max": "3 ms"}}, {"latency": {"max": 0.1}}, {"memory": {"max": "2 MB"}}]
)
def test_what_is_quantized_is_not_told_to_become_int8(limits: Any) -> None:
    timed = stage(1, "benchmark.latency", changed=False, latency=[NCNN])
    for name, expected in (("prune.channels", True), ("quantize.static", False)):
        fix = one(limits, record(stage(0, name), timed, baseline=model())).fix
        assert ("quantize to int8" in fix) is expected
        assert "prune more" in fix


def test_each_limit_of_a_list_is_a_gate() -> None:
    limits = {"latency": [{"max": 0.9}, {"max": "3 ms"}, {"max": "5 ms", "runtime": "ncnn"}]}
    timed = stage(1, "benchmark.latency", changed=False, latency=[ORT, NCNN])
    budget = Budget.model_validate(limits)
    gates = judge(budget, record(timed, baseline=model()))
    verdicts = {"latency": "pass", "latency.p50": "fail", "latency.ncnn.p50": "pass"}
    assert {gate.name: gate.verdict for gate in gates} == verdicts
    assert has_limits(budget)
    assert Budget.model_validate(budget.model_dump(mode="json", exclude_none=True)) == budget
    ended = record(timed, failure=Failure(where="stages[2]", message="no", exit_code=3))
    assert [(gate.name, gate.verdict) for gate in judge(budget, ended)] == [(name, "skipped") for name in verdicts]


SKIPPED = {"runtime": "ncnn", "threads": 1, "batch": 1, "skipped": "it has no layer for Gather", "reasons": {}}


@pytest.mark.parametrize(("limits", "rows", "said"), [
    ({"latency": {"max": "5 ms"}}, [ORT, SKIPPED], "ncnn, threads 1, batch 1: it has no layer for Gather"),
    ({"latency": {"max": "5 ms", "percentile": 99}}, [{**ORT, "p99_ms": None, "reasons": {"p99_ms": "60 samples"}}],
     "60 samples"),
    ({"memory": {"max": "1 GB"}}, [{**ORT, "memory": None}], "there is no memory"),
    ({"startup": {"max": "1 s"}}, [{**ORT, "startup": {"imports_s": 0.1}}], "there is no startup"),
    ({"memory": {"max": "1 GB", "runtime": "mnn"}}, [ORT], "no row is of mnn"),
    ({"startup": {"max": "1 s", "threads": 2}}, [ORT], "no row is of threads 2"),
])  # fmt: skip
def test_what_has_no_figure_is_skipped_with_the_reason(limits: Any, rows: Any, said: str) -> None:
    gate = judged(limits, *rows)
    assert (gate.verdict, gate.value) == ("skipped", None)
    assert said in gate.message
    assert gate.fix


def test_a_remedy_is_for_what_is_missing() -> None:
    not_there = judged({"latency": {"max": "5 ms", "runtime": "ncn"}}, ORT, SKIPPED)
    assert "Limit what was measured, which is onnxruntime, threads 1, batch 1 and ncnn, threads 1" in not_there.fix
    reason = "it takes no int8; expected fp32. Measure before."
    skipped = judged({"startup": {"max": "1 s", "runtime": "ncnn"}}, ORT, {**SKIPPED, "skipped": reason})
    assert skipped.message.endswith("expected fp32. Measure before")
    assert ("takes, or limit one" in skipped.fix, "rounds" in skipped.fix) == (True, False)


def test_a_row_that_is_over_the_limit_fails_also_where_another_was_skipped() -> None:
    assert judged({"latency": {"max": "1 ms"}}, ORT, SKIPPED).verdict == "fail"


@pytest.mark.parametrize(
    "limits", [{"latency": {"max": 0.9}}, {"latency": {"max": "1 s"}}, {"memory": {"max": "1 GB"}}]
)
def test_a_runtime_with_another_model_keeps_no_budget(limits: Any) -> None:
    other = {**NCNN, "score": {"value": 0.4, "verdict": "other model"}}
    gate = judged(limits, ORT, other)
    assert gate.verdict == "fail"
    assert "(ncnn, threads 1, batch 1): its answers are those of another model" in gate.message
    ((kind, limit),) = limits.items()
    assert judged({kind: {**limit, "runtime": "onnxruntime"}}, ORT, other).verdict == "pass"


def test_settings_tell_rows_of_one_runtime_apart() -> None:
    both = [
        bench("openvino", settings={"precision": name}, median=(ms,) * 3) for name, ms in (("f32", 4), ("native", 2))
    ]
    assert judged({"latency": {"max": "3 ms", "runtime": "openvino native"}}, *both).verdict == "pass"
    assert judged({"latency": {"max": "3 ms", "runtime": "openvino"}}, *both).verdict == "fail"


def exported(runtime: str, then: str) -> Record:
    """A torch model timed in a runtime, exported, and something else done to it."""
    timed = stage(1, "benchmark.latency", changed=False, latency=[bench(runtime)])
    parity = {"parity": {"largest_difference": 1e-6}}
    return record(stage(), timed, stage(2, "export.onnx", reports=parity), stage(3, then), baseline=model())


def test_a_runtime_that_took_the_torch_model_counts_after_the_export_and_not_after_a_change() -> None:
    named, every = {"latency": {"max": "1 s", "runtime": "executorch"}}, {"latency": {"max": "1 s"}}
    changed = one(named, exported("executorch", "quantize.static"))
    assert (changed.verdict, "before stages[3] (quantize.static)" in changed.message) == ("skipped", True)
    whole = exported("executorch", "benchmark.latency")
    same = whole.model_copy(update={"stages": [*whole.stages[:3], stage(3, "look.py", changed=False)]})
    assert one(named, same).verdict == "pass"
    assert "before stages[2] (export.onnx)" in one(every, same).message


@pytest.mark.parametrize(("limits", "message"), [
    ({"latency": {"max": "5"}}, "a number above 0, which is a ratio to the baseline's, or a time, such as 5 ms"),
    ({"latency": {"max": "0 ms"}}, "a number above 0"),
    ({"latency": {"max": 0}}, "a number above 0"),
    ({"latency": {"max": True}}, "a number above 0"),
    ({"latency": {"max": 0.5, "percentile": 90}}, "a ratio is of medians"),
    ({"latency": {"max": "5 ms", "percentile": 75}}, "one of 50, 90, 99, 99.9"),
    ({"latency": []}, "at least 1 item"),
    ({"latency": [{"max": "5 ms"}, {"max": "6 ms", "percentile": 50}]}, "two are of p50"),
    ({"latency": 0.5}, "a mapping, such as {max: 0.5}, or a list of them"),
    ({"memory": 60}, "a mapping, such as {max: 60}"),
    ({"memory": {"max": 60}}, "a size of 1 MB or more, such as 60 MB"),
    ({"memory": {"max": 0.5}}, "a size of 1 MB or more"),
    ({"memory": {"max": "60 megas"}}, "a size, such as 40 kB or 1 MiB"),
    ({"startup": {"max": 300}}, "a time above 0, such as 300 ms or 1.5 s"),
    ({"startup": {"max": "1 s", "threads": 0}}, "greater than or equal to 1"),
])  # fmt: skip
def test_limits_on_rows_that_mean_nothing_are_refused(limits: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Budget.model_validate(limits)
