"""Whether a model is the same one in a runtime, and what a row says of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.estimate import Estimate
from pipeline.context import Scored
from pipeline.errors import Interruption, StageError
from pipeline.forms.sandbox.calls import Calls, State, Value
from pipeline.forms.sandbox.session import Outside
from stages.benchmark.answers.scores import Score, Scores, verdict
from stages.benchmark.runtimes.onnxruntime import OnnxRuntime
from stages.benchmark.runtimes.ort import OrtFormat
from stages.benchmark.timing.rounds import Participant
from tests.aliases import Make
from tests.graphs import products

DROP = Estimate(value=0.01, low=-0.01, high=0.03)
GAIN = Estimate(value=-0.005, low=-0.03, high=0.02)
SAME = Scored(0.9, None, None, None, DROP, 0, 0, changed=0.0, difference=None, worst=None, keeps_budget=None)
FLIPPED = replace(SAME, lost=3, gained=1, changed=0.25, worst=17)
GRADED = replace(SAME, lost=None, gained=None, changed=None, difference=0.005)


@pytest.mark.parametrize(("scored", "rounding", "drop", "expected"), [
    (SAME, 0.0, 0.0, "same decisions"),
    (replace(SAME, keeps_budget=False), 0.0, 0.0, "same decisions"),
    (FLIPPED, 0.5, 0.01, "within the budget"),  # the drop itself: its interval goes up to 0.03
    (FLIPPED, 0.5, 0.009, "other model"),
    (replace(FLIPPED, drop=GAIN), 0.0, 0.0, "within the budget"),
    (replace(FLIPPED, keeps_budget=True), 0.0, 0.0, "within the budget"),
    (replace(FLIPPED, keeps_budget=False), 0.0, 1.0, "other model"),
    (GRADED, 0.005, 0.0, "same decisions"),
    (GRADED, 0.004, 0.05, "within the budget"),
    (GRADED, 0.004, 0.0, "other model"),
])  # fmt: skip
def test_it_is_the_same_model_where_decisions_or_the_budget_are_kept(
    scored: Scored, rounding: float, drop: float, expected: str
) -> None:
    assert verdict(scored, rounding, drop) == expected


def test_a_row_has_the_agreed_fields() -> None:
    json: Any = Score(replace(FLIPPED, retention=DROP), "other model").json
    interval = {"value": 0.01, "low": -0.01, "high": 0.03}
    assert json == {
        "value": 0.9, "validation": None, "retention": interval, "drop": interval, "flips": {"lost": 3, "gained": 1},
        "changed": 0.25, "worst": 17, "verdict": "other model", "validation_retention": None,
    }  # fmt: skip
    graded = Score(replace(GRADED, retention=DROP, validation_retention=DROP, validation=0.5), "same decisions")
    assert graded.json
    assert graded.json["flips"] is None
    assert graded.reasons == {
        "score.flips": "scores are not right or wrong",
        "score.changed": "predictions are no decisions",
        "score.worst": "no test example lost any score",
    }
    assert (Score(reason="no").json, Score(reason="no").reasons) == (None, {"score": "no"})


def answering(told: Any) -> Callable[..., Any]:
    """A task's machinery that tells this, or raises it; what it was asked is in `asked`."""
    asked: list[Any] = []

    def scored(model: Any, predict: Any) -> Any:
        asked.append(predict)
        if isinstance(told, Exception):
            raise told
        return told

    scored.asked = asked  # type: ignore[attr-defined]
    return scored


def of(folder: Path, context: Make, told: Any, runtime: Any = None, model: Any = None, **changes: Any) -> Score:
    ctx = context(scored=told if callable(told) else answering(told), **changes)
    specs = {4: {"runner": "onnxruntime", "model": str(folder / "m.onnx"), "machine": "another", "generate": {}}}
    model = model or products(folder / "m.onnx", 1, width=64)
    runtime = runtime or OrtFormat(use="ort")
    return Scores(ctx, ctx.directory, 1, 4, 0.009).of(Participant("model", "a"), model, runtime, specs)


def test_a_file_is_not_asked_again_where_it_was_measured(tmp_path: Path, context: Make, tiny: Make) -> None:
    reference, scored = OnnxRuntime(use="onnxruntime"), answering(SAME)
    assert of(tmp_path, context, scored, reference).verdict == "same decisions"
    of(tmp_path, context, scored)
    file = products(tmp_path / "file.onnx", 1, width=64)
    of(tmp_path, context, scored, reference, tiny(), deployed=lambda _: file)  # measured as a torch model
    assert [predict is None for predict in scored.asked] == [True, False, False]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("on", "expected"), [
    ({"memory": "1 GB"}, {"threads"}),
    ({"ssh": "someone@board"}, {"threads", "machine"}),
])  # fmt: skip
def test_limits_are_for_what_is_timed(tmp_path: Path, context: Make, on: Any, expected: set[str]) -> None:
    scored = answering(SAME)
    of(tmp_path, context, scored, OrtFormat.model_validate({"use": "ort", "on": on}))
    assert {*scored.asked[0].spec} - {"runner", "model"} == expected  # type: ignore[attr-defined]


def test_rounding_is_by_what_the_file_computes_in(tmp_path: Path, context: Make) -> None:
    assert of(tmp_path, context, replace(GRADED, difference=9e-4)).verdict == "same decisions"
    assert of(tmp_path, context, replace(GRADED, difference=2e-3)).verdict == "other model"


def test_what_is_not_to_be_had_is_told_and_a_failure_is_one(tmp_path: Path, context: Make) -> None:
    score = of(tmp_path, context, "there is nothing to read")
    assert (score.json, score.reason, score.is_failure) == (None, "there is nothing to read", False)
    failed = of(tmp_path, context, StageError("it ended with 1"))
    assert (failed.is_failure, str(failed)) == (True, "it has no score: it ended with 1")
    with pytest.raises(Interruption):
        of(tmp_path, context, StageError("it ended with 1"), interrupted=lambda: True)


@pytest.mark.parametrize(("told", "message"), [
    (FLIPPED, r"^ort, which is required: it is another model .* 25.00% of decisions .* 17 of the test split$"),
    (StageError("it ended with 1"), "^ort, which is required: it has no score: it ended with 1$"),
])  # fmt: skip
def test_one_that_is_required_must_have_its_score(tmp_path: Path, context: Make, told: Any, message: str) -> None:
    runtime = OrtFormat(use="ort", required=True)
    with pytest.raises(StageError, match=message):
        of(tmp_path, context, told, runtime)
    assert of(tmp_path, context, "nothing to read", runtime).reason == "nothing to read"


def test_what_other_runtimes_are_not_asked_is_no_failure_of_theirs(tmp_path: Path, context: Make) -> None:
    states = Calls(states={"h": State("hn", Value("float32", (0,)))})
    model = products(tmp_path / "m.onnx", 1, width=64)
    required = OrtFormat(use="ort", required=True)
    score = of(tmp_path, context, SAME, required, replace(model, outside=Outside(calls=states)))
    assert (score.reason, score.is_failure) == ("its file has states, which calls hand on", False)


def test_a_test_split_that_is_not_here_is_said(tmp_path: Path, context: Make) -> None:
    ctx = context()
    scored = ctx.scored(products(tmp_path / "m.onnx", 1), None)
    assert scored == "no test examples are here"
