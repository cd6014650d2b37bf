"""A budget gives pass, fail or inconclusive; what is exact is decided exactly."""

import re
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy
from pydantic import ValidationError
from safetensors.numpy import save_file

from pipeline.base.estimate import Estimate
from pipeline.gate.budget import Budget
from pipeline.gate.expected import Expected, PackedScores, of_run
from pipeline.gate.judge import has_limits, judge, judged, verdict, warnings_of
from pipeline.measure.statistics.pairs import Pairs
from pipeline.measure.statistics.shares import ratio_ends, ratio_interval
from pipeline.records.parts.gates import GateRecord
from pipeline.records.parts.models import ClassMeasure, Flips, ModelRecord
from pipeline.records.parts.stages import StageRecord
from pipeline.records.record import Failure, Record
from tests.aliases import Make
from tests.records import MODEL, model, paired, record, stage

ROW: dict[str, Any] = {"runtime": "onnxruntime", "threads": 1, "batch": 1, "rounds": 5}
ROW |= {"ratio": {"value": 0.5, "low": 0.48, "high": 0.52, "verdict": "faster"}}


def run(*stages: StageRecord, **changes: Any) -> Record:
    return record(*stages, **{"baseline": model(), **changes})


def one(limits: dict[str, Any], record: Record, expected: Expected | None = None) -> GateRecord:
    (gate,) = judge(Budget.model_validate(limits), record, expected)
    return gate


def kept(low: float, value: float, high: float) -> Record:
    return run(stage(retention=Estimate(value=value, low=low, high=high)))


@pytest.mark.parametrize(
    ("key", "name", "value"), [("size", "size_bytes", 1000), ("params", "params", 200), ("macs", "macs", 3000)]
)
def test_an_exact_limit_is_kept_by_equality_and_broken_by_one(key: str, name: str, value: int) -> None:
    for limit, expected in ((value, "pass"), (value - 1, "fail"), (value + 1, "pass")):
        gate = one({key: {"max": limit}}, run(stage()))
        assert (gate.name, gate.value, gate.limit, gate.verdict) == (name, value, limit, expected)
        assert gate.message == f"{name} is {value:,}, the limit {limit:,}"
        assert bool(gate.fix) == (expected == "fail")


def test_a_limit_may_be_a_factor_of_the_baseline() -> None:
    record = run(stage(size_bytes=29), baseline=model(size_bytes=100))
    gate = one({"size": {"max": 0.29, "of": "baseline"}}, record)  # 0.29 * 100 is less than 29 in floats
    assert (gate.verdict, gate.limit, gate.of) == ("pass", 29, "baseline")
    assert gate.message == "size_bytes is 29, the limit 29, which is 0.29 of the baseline's 100"
    assert one({"size": {"max": 0.28, "of": "baseline"}}, record).verdict == "fail"


@pytest.mark.parametrize("limit", [{"max": 5000}, {"max": 0.5, "of": "baseline"}])
def test_macs_that_are_not_known_are_skipped_with_their_reason(limit: dict[str, Any]) -> None:
    unknown = {"macs": None, "macs_reason": "the MACs of `MoE` are not known"}
    gate = one({"macs": limit}, run(stage(**unknown)))
    assert (gate.verdict, gate.value) == ("skipped", None)
    assert "the MACs of `MoE` are not known" in gate.message
    if "of" in limit:
        assert one({"macs": limit}, run(stage(), baseline=model(**unknown))).verdict == "skipped"


def test_a_limit_may_be_a_factor_of_the_committed_model(committed: Make) -> None:
    gate = one({"params": {"max": 0.5, "of": "expected"}}, run(stage(params=300)), committed(params=500))
    assert (gate.verdict, gate.limit, gate.of) == ("fail", 250, "expected")
    assert "0.5 of the committed model's 500" in gate.message


def test_what_is_too_large_is_told_by_how_much_and_which_stage_shrank_it_least() -> None:
    sizes = {"distill.logits": 4000, "prune.channels": 3000, "export.onnx": 3000, "quantize.static": 1000}
    stages = [stage(i, name, size_bytes=size) for i, (name, size) in enumerate(sizes.items())]
    gate = one({"size": {"max": 800}}, run(*stages, baseline=model(size_bytes=10_000)))
    assert "1.25 times the limit" in gate.fix
    assert "stages[1] (prune.channels) shrinks it least, by a factor of 1.33" in gate.fix
    assert "no stage makes it smaller" in one({"size": {"max": 800}}, run(stage())).fix


@pytest.mark.parametrize(("stages", "advice"), [
    ([stage()], ": quantize to int8, prune more"),
    ([stage(0, "quantize.static")], ": take fewer `bits` and quantize.pack, prune more"),
    ([stage(0, "quantize.static"), stage(1, "quantize.pack")], ": take fewer `bits`, prune more"),
    ([stage(0, "mine.py", payload_bytes=250)], ": take fewer `bits` and quantize.pack, prune more"),  # of 200 weights
])  # fmt: skip
def test_what_is_too_large_is_told_what_it_has_not_done_yet(stages: list[StageRecord], advice: str) -> None:
    assert advice in one({"size": {"max": 800}}, run(*stages)).fix


@pytest.mark.parametrize(("interval", "expected"), [
    ((0.95, 0.97, 0.99), "pass"),
    ((0.949, 0.97, 0.99), "inconclusive"),
    ((0.90, 0.92, 0.95), "inconclusive"),
    ((0.90, 0.92, 0.949), "fail"),
    ((1.0, 1.0, 1.0), "pass"),
])  # fmt: skip
def test_retention_is_decided_by_its_interval(interval: tuple[float, float, float], expected: str) -> None:
    gate = one({"retention": {"min": 0.95}}, kept(*interval))
    assert gate.verdict == expected
    assert (gate.low, gate.value, gate.high) == interval
    low, value, high = interval
    assert gate.message.startswith(f"retention is {value:.3f} [{low:.3f}, {high:.3f}], the limit 0.95")
    assert (gate.samples_needed is not None) == (expected == "inconclusive")


@pytest.mark.parametrize(("value", "half"), [(0.97, 0.04), (0.93, 0.05)])
def test_an_inconclusive_gate_of_graded_scores_names_the_examples_that_decide_mostly(value: float, half: float) -> None:
    gate = one({"retention": {"min": 0.95}}, kept(value - half, value, value + half))
    found = re.search(r"about ([\d,]+) test examples would decide, there are 400", gate.message)
    assert int(found[1].replace(",", "")) == gate.samples_needed
    assert gate.samples_needed
    # The figure lies 1.960 + 1.282 standard errors from the limit: the interval clears it in 90 % of all cases.
    error = half / 1.959964 * sqrt(400 / gate.samples_needed)
    assert abs(value - 0.95) == pytest.approx((1.959964 + 1.281552) * error, rel=1e-3)


def test_a_figure_on_the_limit_is_not_decided_by_more_examples() -> None:
    gate = one({"retention": {"min": 0.95}}, kept(0.9, 0.95, 1.0))
    assert (gate.verdict, gate.samples_needed) == ("inconclusive", None)
    assert "no number of examples decides" in gate.message


STAGES = [
    stage(0, "distill.logits", score=0.95),
    stage(1, "prune.channels", score=0.90),
    stage(2, "quantize.static", **paired(Pairs(350, 4, 30, 16))),
]


@pytest.mark.parametrize(("limits", "expected"), [
    ({"retention": {"min": 0.99}}, "fail"),
    ({"retention": {"min": 0.90}}, "inconclusive"),
    ({"retention": {"min": 0.85}}, "pass"),
    ({"drop": {"max": 0.02}}, "fail"),
    ({"drop": {"max": 0.07}}, "inconclusive"),
    ({"drop": {"max": 0.06}}, "inconclusive"),
    ({"drop": {"max": 0.2}}, "pass"),
    ({"flips": {"max": 0.02}}, "fail"),
    ({"flips": {"max": 0.08}}, "inconclusive"),
    ({"flips": {"max": 0.2}}, "pass"),
])  # fmt: skip
def test_accuracy_gates_have_all_verdicts_and_a_fix_unless_they_pass(limits: dict[str, Any], expected: str) -> None:
    gate = one(limits, run(*STAGES, baseline=model(score=0.96)))
    assert gate.verdict == gate.counts_as == expected
    if expected == "fail":
        assert gate.fix.startswith("stages[1] (prune.channels) cost most, 5.0 points of score")
    assert bool(gate.fix) == (expected != "pass")
    assert "\n" not in gate.fix
    if expected == "inconclusive":
        assert (gate.samples_needed or 0) > 400
        assert f"{gate.samples_needed:,}" in gate.fix
        assert f"{gate.samples_needed:,}" in gate.message


def test_a_model_that_would_fail_on_more_examples_is_told_so() -> None:
    gate = one({"retention": {"min": 0.945}}, run(*STAGES, baseline=model(score=0.96)))
    assert (gate.verdict, gate.value and gate.value < 0.945) == ("inconclusive", True)
    assert "a model like this one fails in 9 of 10 cases" in gate.fix
    assert "stages[1] (prune.channels) cost most" in gate.fix


def test_losses_of_scores_that_are_no_shares_are_not_told_in_points() -> None:
    last = stage(score=20.5, drop=Estimate(value=3, low=2, high=4))
    assert "cost most, 3 of score" in one({"drop": {"max": 0.5}}, run(last, baseline=model(score=23.5))).fix


@pytest.mark.parametrize(("limits", "figures", "message", "fix"), [
    ({"flips": {"max": 0.1}}, {"drop": Estimate(value=0.1, low=0, high=0.2)}, "these are graded", ""),
    ({"retention": {"min": 0.95}}, {"retention": None, "retention_reason": "the baseline's mean score is 0"},
     "the baseline's mean score is 0", "`drop`"),
    ({"worst_class": {"min": 0.9}}, {}, "no figures by class", "integer class numbers"),
    ({"parity": {"max": 1}}, {}, "no stage exported", "{use: export.onnx}"),
])  # fmt: skip
def test_what_is_not_defined_is_skipped(limits: Any, figures: dict[str, Any], message: str, fix: str) -> None:
    gate = one(limits, run(stage(**figures)))
    assert (gate.verdict, gate.counts_as, gate.value) == ("skipped", "inconclusive", None)
    assert message in gate.message
    assert fix in gate.fix


def classes(*tables: Pairs) -> Record:
    found = [
        ClassMeasure(
            label=f"c{i}",
            support=sum(t),
            score=(t.both + t.gained) / sum(t),
            retention=ratio_interval(t) if t.both + t.lost else None,
            flips=Flips(lost=t.lost, gained=t.gained),
        )
        for i, t in enumerate(tables)
    ]
    return run(stage(classes=found, test_samples=sum(map(sum, tables))))


GOOD, BAD, FEW = Pairs(1000, 0, 0, 0), Pairs(500, 0, 500, 0), Pairs(28, 0, 2, 0)


@pytest.mark.parametrize(("tables", "expected", "named"), [
    ([GOOD, GOOD], "pass", "c0"),
    ([GOOD, BAD], "fail", "c1"),
    ([GOOD, FEW, GOOD], "inconclusive", "c1"),
    ([FEW, BAD], "fail", "c1"),
    ([GOOD, Pairs(0, 0, 0, 50)], "pass", "c0"),
])  # fmt: skip
def test_every_class_must_keep_its_share_and_the_worst_is_named(tables: list[Pairs], expected: str, named: str) -> None:
    gate = one({"worst_class": {"min": 0.9}}, classes(*tables))
    assert gate.verdict == expected
    assert f"the worst class, {named}, keeps" in gate.message


def test_a_class_that_looks_bad_among_many_is_no_failure_by_luck() -> None:
    """Alone its upper end is below the limit; among a hundred classes one such is to be expected."""
    unlucky = Pairs(170, 0, 30, 0)
    assert ratio_interval(unlucky).high < 0.91
    assert one({"worst_class": {"min": 0.91}}, classes(unlucky)).verdict == "fail"
    assert one({"worst_class": {"min": 0.91}}, classes(unlucky, *[GOOD] * 99)).verdict == "inconclusive"


def test_a_class_needs_its_share_of_more_test_examples() -> None:
    alone = one({"worst_class": {"min": 0.8}}, classes(FEW))
    beside = one({"worst_class": {"min": 0.8}}, classes(FEW, Pairs(270, 0, 0, 0)))
    assert beside.samples_needed == 10 * alone.samples_needed > 0
    assert "class c0 has 30 of 300" in beside.fix


def test_on_the_samples_that_are_asked_for_all_classes_pass_together_in_nine_of_ten_cases() -> None:
    like = Pairs(90, 2, 4, 4)
    gate = one({"worst_class": {"min": 0.95}}, classes(*[like] * 8))
    assert gate.samples_needed
    draws = np.random.default_rng(0).multinomial(gate.samples_needed // 8, np.array(like) / 100, size=(2000, 8))
    low, _ = ratio_ends(draws[..., 0], draws[..., 1], draws[..., 2])
    assert (low >= 0.95).all(axis=1).mean() >= 0.9 - 2 * sqrt(0.9 * 0.1 / 2000)


def test_classes_of_one_name_are_both_looked_at() -> None:
    record = classes(BAD, GOOD)
    assert isinstance(record.final, ModelRecord)
    record.final.classes[0].label = record.final.classes[1].label
    assert one({"worst_class": {"min": 0.9}}, record).verdict == "fail"


def test_parity_is_that_of_the_last_export() -> None:
    parities = {"largest_difference": 0.5}, {"largest_difference": 1e-6}, "even"
    stages = [stage(i, "export.onnx", reports={"parity": parity}) for i, parity in enumerate(parities)]
    for limit, expected in ((1e-5, "pass"), (1e-6, "pass"), (1e-7, "fail")):
        gate = one({"parity": {"max": limit}}, run(*stages))
        assert (gate.verdict, gate.value, bool(gate.fix)) == (expected, 1e-6, expected == "fail")


def timed(*ratios: dict[str, Any] | None, **changes: Any) -> StageRecord:
    rows = [{**ROW, "batch": i + 1, "ratio": ratio} for i, ratio in enumerate(ratios)]
    return stage(**{"position": 1, "name": "benchmark.latency", "changed": False, "latency": rows, **changes})


def ratio(low: float, value: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "verdict": "faster"}


@pytest.mark.parametrize(("stages", "expected", "said"), [
    ([timed(ratio(0.4, 0.45, 0.5))], "pass", "0.450 [0.400, 0.500] of the baseline's"),
    ([timed(ratio(0.51, 0.6, 0.7))], "fail", "the limit 0.5"),
    ([timed(ratio(0.4, 0.45, 0.51))], "inconclusive", "the limit 0.5"),
    ([timed(ratio(0.5, 0.55, 0.6))], "inconclusive", "the limit 0.5"),
    ([timed(ratio(0.1, 0.2, 0.3), ratio(0.51, 0.6, 0.7))], "fail", "batch 2"),
    ([timed(ratio(0.1, 0.2, 0.3), ratio(0.4, 0.45, 0.51))], "inconclusive", "batch 2"),
    ([timed(ratio(0.1, 0.2, 0.3), None)], "skipped", "batch 2: there is no ratio"),
    ([timed({"value": 0.2, "low": None, "high": None})], "skipped", "there is no ratio"),
    ([timed(ratio(0.1, 0.2, 0.3), cached=True)], "skipped", "in an earlier run"),
    ([timed(ratio(0.1, 0.2, 0.3)), stage(2, "quantize.static")], "skipped", "before stages[2] (quantize.static)"),
    ([stage()], "skipped", "no stage measured it"),
])  # fmt: skip
def test_latency_is_decided_by_every_row_of_this_run(stages: list[StageRecord], expected: str, said: str) -> None:
    gate = one({"latency": {"max": 0.5}}, run(*stages))
    assert gate.verdict == expected
    assert said in gate.message
    assert bool(gate.fix) == (expected != "pass")


def test_latency_that_is_inconclusive_tells_how_many_rounds_would_decide() -> None:
    gate = one({"latency": {"max": 0.5}}, run(timed(ratio(0.4, 0.45, 0.50625))))
    # On the log scale the limit is 0.894 half widths away; 1 + 1.2816 / 1.96 are wanted: (1.654 / 0.894)^2 * 5 = 17.1.
    assert "from 5 to about 18: a model as fast as this one then passes" in gate.fix


def test_what_an_effort_decides_is_named_beside_it() -> None:
    found = timed(ratio(0.4, 0.45, 0.50625), settings={"effort": "quick"})
    assert "Raise `rounds`, in place of `effort`, of stages[1]" in one({"latency": {"max": 0.5}}, run(found)).fix


@pytest.fixture
def committed() -> Callable[..., Expected]:
    """committed(scores, **figures): what a run with these test scores left behind."""

    def make(scores: Any = None, **figures: Any) -> Expected:
        given = {name: MODEL[name] for name in ("form", "size_bytes", "payload_bytes", "params", "macs", "score")}
        given |= {"test_samples": 400, "config": "c", "seed": 0, "host": "here", "versions": {}}
        given |= {"digests": {"test": "t"}, "scores": None if scores is None else PackedScores.of(np.asarray(scores))}
        return Expected(**{**given, **figures})

    return make


@pytest.fixture
def scored(tmp_path: Path) -> Callable[..., Record]:
    """scored(scores): a run whose last model has these test scores in its folder."""

    def make(scores: Any, **changes: Any) -> Record:
        values = np.asarray(scores, float)
        save_file({"predictions": np.zeros((len(values), 2)), "scores": values}, tmp_path / "predictions.safetensors")
        given = {"folder": str(tmp_path), "data": {"test": {"digest": "t"}}, "environment": {"host": "here"}}
        return run(stage(score=values.mean(), test_samples=len(values)), **{**given, **changes})

    return make


OF_EXPECTED = {"retention": {"min": 0.97, "of": "expected"}}


def test_the_score_itself_is_decided_by_its_interval(scored: Make) -> None:
    right = scored(np.r_[np.zeros(30), np.ones(970)])
    gate = one({"score": "95 %"}, right)
    exact = scipy.stats.binomtest(970, 1000).proportion_ci()
    assert (gate.verdict, gate.value, gate.low, gate.high) == ("pass", 0.97, *map(pytest.approx, exact))
    assert gate.message == "score is 0.970 [0.957, 0.980], the limit 0.95"
    assert one({"score": 0.99}, right).verdict == "fail"
    near = one({"score": {"min": 0.96}}, right)
    assert (near.verdict, bool(near.samples_needed)) == ("inconclusive", True)


def test_a_limit_of_a_score_that_is_an_error_is_below_zero(scored: Make) -> None:
    errors = -np.random.default_rng(0).uniform(0, 0.4, 900)
    gate = one({"score": {"min": -0.25}}, scored(errors))
    reach = 1.96 * errors.std() / sqrt(900)
    ends = pytest.approx((errors.mean() - reach, errors.mean() + reach), abs=0.002)
    assert (gate.verdict, gate.value, (gate.low, gate.high)) == ("pass", errors.mean(), ends)
    gone = one({"score": {"min": -0.25}}, scored(errors, folder="/none"))
    assert (gone.verdict, "has no predictions" in gone.message) == ("skipped", True)


def test_retention_of_the_committed_model_is_paired_over_the_same_examples(scored: Make, committed: Make) -> None:
    ours, theirs = np.ones(1000), np.ones(1000)
    ours[:12], theirs[5:25] = 0, 0
    gate = one(OF_EXPECTED, scored(ours), committed(theirs))
    table = Pairs(975, 13, 5, 7)
    assert (gate.value, gate.low, gate.high) == tuple(ratio_interval(table).model_dump().values())
    assert (gate.verdict, gate.of) == ("pass", "expected")
    assert "of the committed model's score" in gate.message
    assert one(OF_EXPECTED, scored(np.r_[np.zeros(200), np.ones(800)]), committed(np.ones(1000))).verdict == "fail"
    few = one(OF_EXPECTED, scored(np.ones(50)), committed(np.ones(50)))
    assert (few.verdict, bool(few.samples_needed)) == ("inconclusive", True)


def test_the_same_graded_model_keeps_all_of_itself(scored: Make, committed: Make) -> None:
    scores = np.random.default_rng(0).uniform(0.2, 1, 300)
    gate = one({"retention": {"min": 1.0, "of": "expected"}}, scored(scores), committed(scores))
    assert (gate.verdict, gate.value, gate.low) == ("pass", 1.0, 1.0)


def test_another_kind_of_processor_is_a_note_and_no_failure(scored: Make, committed: Make) -> None:
    gate = one(OF_EXPECTED, scored(np.ones(1000)), committed(np.ones(1000), host="elsewhere"))
    assert gate.verdict == "pass"
    assert "another kind of processor" in gate.message
    assert "another kind" not in one(OF_EXPECTED, scored(np.ones(1000)), committed(np.ones(1000))).message


@pytest.mark.parametrize(("figures", "changes", "reason"), [
    ({"digests": {"test": "other"}}, {}, "on other test examples"),
    ({}, {"data": {}}, "on other test examples"),
    ({"scores": None}, {}, "has no test scores"),
    ({}, {"folder": "/none"}, "has no predictions of the last model any more"),
])  # fmt: skip
def test_what_cannot_be_paired_with_the_committed_model_is_skipped(
    scored: Make, committed: Make, figures: Any, changes: Any, reason: str
) -> None:
    expected = committed(np.ones(100)).model_copy(update=figures)
    gate = one(OF_EXPECTED, scored(np.ones(100), **changes), expected)
    assert (gate.verdict, gate.of) == ("skipped", "expected")
    assert reason in gate.message
    assert "shrink expect RUN" in gate.fix


def test_the_last_model_keeps_all_of_what_was_expected_of_it(scored: Make, tmp_path: Path) -> None:
    record = scored(np.r_[np.zeros(30), np.ones(970)])
    (tmp_path / "model.onnx").write_bytes(b"x")
    limits = {"retention": {"min": 0.99, "of": "expected"}, "size": {"max": 1, "of": "expected"}}
    assert [gate.verdict for gate in judge(Budget.model_validate(limits), record, of_run(record))] == ["pass", "pass"]


@pytest.mark.parametrize(("verdicts", "expected"), [
    ([], None),
    (["pass", "pass"], "pass"),
    (["pass", "inconclusive"], "inconclusive"),
    (["pass", "skipped"], "inconclusive"),
    (["inconclusive", "fail", "pass"], "fail"),
])  # fmt: skip
def test_the_whole_is_as_good_as_its_worst_gate(verdicts: list[Any], expected: str | None) -> None:
    assert verdict([GateRecord(name="x", limit=1, value=1, verdict=v, message="") for v in verdicts]) == expected


@pytest.mark.parametrize(
    ("choice", "whole"), [("pass", "pass"), ("warn", "pass"), ("fail", "fail"), ("inconclusive", "inconclusive")]
)
@pytest.mark.parametrize("key", ["on_inconclusive", "on_skipped"])
def test_the_budget_says_what_an_open_gate_means(key: str, choice: str, whole: str) -> None:
    limits = {"retention": {"min": 0.95}} if key == "on_inconclusive" else {"parity": {"max": 1}}
    gates = judge(Budget.model_validate({**limits, "size": {"max": 10**6}, key: choice}), kept(0.9, 0.97, 1.0))
    assert [gate.counts_as for gate in gates] == [choice, "pass"]
    assert gates[0].verdict == key.removeprefix("on_")
    assert verdict(gates) == whole
    assert warnings_of(gates) == ([f"budget: {gates[0].verdict}: {gates[0].message}"] if choice == "warn" else [])


def test_a_failure_is_never_softened() -> None:
    limits = {"size": {"max": 1}, "on_inconclusive": "pass", "on_skipped": "pass"}
    assert verdict(judge(Budget.model_validate(limits), run(stage()))) == "fail"


def test_judging_again_leaves_no_warning_of_the_gates_before() -> None:
    record = kept(0.9, 0.97, 1.0)
    warn = Budget.model_validate({"retention": {"min": 0.95}, "on_inconclusive": "warn"})
    record.warnings = ["of a stage"]
    once = judged(record, judge(warn, record))
    assert len(once.warnings) == 2
    assert judged(once, judge(warn, once)).warnings == once.warnings
    strict = judged(once, judge(Budget.model_validate({"retention": {"min": 0.95}}), once))
    assert (strict.warnings, strict.verdict) == (["of a stage"], "inconclusive")


EVERY = {"retention": {"min": 0.9}, "drop": {"max": 0.1}, "flips": {"max": 0.1}, "worst_class": {"min": 0.5}}
EVERY |= {"parity": {"max": 1}, "size": {"max": "1 kB"}, "params": {"max": 1}, "macs": {"max": 10**6}}
EVERY |= {"latency": {"max": 0.7}}
NAMES = ["retention", "drop", "flips", "worst_class", "parity", "size_bytes", "params", "macs", "latency"]


def test_every_limit_of_a_budget_is_judged() -> None:
    found = paired(Pairs(390, 0, 0, 10), latency=[ROW], reports={"parity": {"largest_difference": 0.1}})
    gates = judge(Budget.model_validate(EVERY), run(stage(**found, changed=False)))
    expected = {**dict.fromkeys(NAMES, "pass"), "worst_class": "skipped", "params": "fail"}
    assert {gate.name: gate.verdict for gate in gates} == expected
    assert [gate.name for gate in gates] == NAMES
    assert judge(Budget(), run(stage())) == []
    assert has_limits(Budget.model_validate(EVERY))
    assert not has_limits(Budget.model_validate({"on_skipped": "pass"}))


def test_of_a_run_that_failed_every_limit_is_skipped() -> None:
    failure = Failure(where="stages[1] (x)", message="it broke", exit_code=3)
    gates = judge(Budget.model_validate(EVERY), run(stage(), failure=failure))
    assert sorted(gate.name for gate in gates) == sorted(NAMES)
    assert {gate.verdict for gate in gates} == {"skipped"}
    assert all("stages[1] (x)" in gate.message and "shrink resume" in gate.fix for gate in gates)
    limits = {gate.name: gate.limit for gate in gates}
    assert (limits["size_bytes"], limits["retention"]) == (1000, 0.9)


def test_a_run_without_stages_is_judged_on_its_baseline() -> None:
    gates = judge(Budget.model_validate({"size": {"max": 1000}, "retention": {"min": 0.9}}), run())
    assert [gate.verdict for gate in gates] == ["skipped", "pass"]


@pytest.mark.parametrize(("limits", "message"), [
    ({"size": {"max": 0.25}}, "a whole number; with `of: baseline` a factor"),
    ({"params": {"max": 2.5}}, "a whole number; with `of: baseline` a factor"),
    ({"params": {"max": 0}}, "greater than 0"),
    ({"size": {"max": -1}}, "greater than or equal to 0"),
    ({"size": {"max": "40 kilos"}}, "a size, such as 40 kB or 1 MiB"),
    ({"size": {"max": "40 kB", "of": "baseline"}}, "a factor above 0, such as 0.25"),
    ({"size": {"max": 0, "of": "baseline"}}, "a factor above 0, such as 0.25"),
    ({"retention": {"min": 1.2}}, "less than or equal to 1"),
    ({"on_skipped": "ignore"}, "'pass', 'warn', 'fail' or 'inconclusive'"),
])  # fmt: skip
def test_limits_that_mean_nothing_are_refused(limits: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Budget.model_validate(limits)


def test_a_budget_is_the_same_after_it_was_written_down() -> None:
    budget = Budget.model_validate({**EVERY, "macs": {"max": 0.5, "of": "expected"}})
    dumped = budget.model_dump(mode="json", exclude_none=True)
    assert (dumped["size"]["max"], dumped["macs"]["max"]) == (1000, 0.5)
    assert isinstance(dumped["size"]["max"], int)
    assert Budget.model_validate(dumped) == budget
