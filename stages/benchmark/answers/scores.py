"""How a model scores in a runtime on the test and validation splits, and whether it is the same model there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from pipeline.context import Context, Scored
from pipeline.errors import StageError
from pipeline.model import Model, TorchModel
from stages.benchmark.answers.distances import tolerance_of
from stages.benchmark.answers.stream import Stream
from stages.benchmark.processes.process import Spec
from stages.benchmark.runtime import Runtime
from stages.benchmark.timing.rounds import Failures, Participant

Verdict = Literal["same decisions", "within the budget", "other model"]

NO_RATIO = "the scores are not on a ratio scale, or there is no baseline's"
NULLS = {
    "validation": "the model was measured on the test split alone",
    "retention": NO_RATIO,
    "validation_retention": NO_RATIO,
    "flips": "scores are not right or wrong",
    "changed": "predictions are no decisions",
    "worst": "no test example lost any score",
}
"""Why a figure of a score is null."""


@dataclass(frozen=True)
class Score:
    """What a row says of a model's score in its runtime, or why that is null.

    Args:
        scored: in pairs with what the model gave where it was measured.
        verdict: whether it is the same model.
        reason: why there is none.
        is_failure: whether the runtime failed at it.
    """

    scored: Scored | None = None
    verdict: Verdict | None = None
    reason: str = ""
    is_failure: bool = False

    @property
    def json(self) -> dict[str, JsonValue] | None:
        """As it stands in a row."""
        if not (scored := self.scored):
            return None
        estimates = {name: getattr(scored, name) for name in ("retention", "drop", "validation_retention")}
        return {
            **{name: getattr(scored, name) for name in ("value", "validation", "changed", "worst")},
            **{name: estimate and estimate.model_dump() for name, estimate in estimates.items()},
            "flips": None if scored.lost is None else {"lost": scored.lost, "gained": scored.gained},
            "verdict": self.verdict,
        }

    @property
    def reasons(self) -> dict[str, str]:
        """Why it, or a figure of it, is null, by names as `score.flips`."""
        figures = self.json
        if figures is None:
            return {"score": self.reason}
        return {f"score.{name}": NULLS[name] for name, value in figures.items() if value is None}

    @property
    def is_other(self) -> bool:
        """Whether it is another model."""
        return self.verdict == "other model"

    def __str__(self) -> str:
        """Why it is another model, or has no score."""
        if not (scored := self.scored):
            return f"it has no score: {self.reason}"
        drop, parts = scored.drop, []
        if scored.lost is not None:
            parts.append(f"{scored.lost} test examples are lost and {scored.gained} gained")
        if scored.changed is not None:
            parts.append(f"{scored.changed:.2%} of decisions are others")
        parts.append(f"the drop is {drop.value:.4f} [{drop.low:.4f}, {drop.high:.4f}]")
        if scored.worst is not None:
            parts.append(f"the worst example is number {scored.worst} of the test split")
        budget = "" if scored.keeps_budget is None else ", and the budget is not kept"
        return f"it is another model there than the one that was measured: {', '.join(parts)}{budget}"


@dataclass(frozen=True)
class Scores:
    """Has models scored in runtimes, each once.

    Args:
        ctx: of the stage.
        folder: for what is passed between processes; it is there.
        threads: of an inference.
        size: examples of an inference where a runtime has a `fixed_batch`.
        drop: of the test score below the paired one, at most, without limits in the budget; the drop itself, for with
            few examples its interval would call one changed example another model. None to leave scores out.
    """

    ctx: Context
    folder: Path
    threads: int
    size: int
    drop: float | None

    def of(self, member: Participant, model: Model, runtime: Runtime, specs: Mapping[int, Spec]) -> Score:
        """Of a model, or of the baseline.

        Args:
            member: which takes part with it.
            model: what is deployed.
            runtime: where.
            specs: of its processes, by examples of an inference.

        Raises:
            StageError: the runtime is required, and it fails or makes a model another one; the baseline may be.
            Interruption: a stop was asked for.
        """
        if self.drop is None:
            return Score(reason="`score` is false")
        failures = Failures()
        with failures.catching(member, self.ctx.interrupted):
            score = self._of(model, runtime, specs[self.size], self.drop)
        if error := failures.error(member.name):
            score = Score(reason=str(error), is_failure=True)
        if runtime.required and member.role == "model" and (score.is_other or score.is_failure):
            raise StageError(f"{runtime.title}, which is required: {score}")
        return score

    def _of(self, model: Model, runtime: Runtime, spec: Spec, drop: float) -> Score:
        # Within limits here the answers are the same, and many examples at a time may be too much.
        is_far = runtime.on is not None and runtime.on.is_far
        spec = {**spec, "threads": self.threads}
        for name in ("generate", *([] if is_far else ["machine"])):
            spec.pop(name, None)
        stream = Stream(runtime, model, self.ctx, spec, self.folder, self.size)
        # A file is measured in the runtime whose answers are the reference.
        is_measured_there = runtime.answers_as_reference and not isinstance(model, TorchModel)
        refusal = "" if is_measured_there else stream.refusal
        scored = refusal or self.ctx.scored(model, None if is_measured_there else stream)
        if isinstance(scored, str):
            return Score(reason=scored)
        rounding = tolerance_of(self.ctx.deployed(model).path) if scored.changed is None else 0.0
        return Score(scored, verdict(scored, rounding, drop))


def verdict(scored: Scored, rounding: float, drop: float) -> Verdict:
    """Whether it is the same model.

    Args:
        scored: see there.
        rounding: as a share of the range of predictions that are no decisions.
        drop: see `Scores`.
    """
    if scored.changed == 0 or (scored.changed is None and (scored.difference or 0.0) <= rounding):
        return "same decisions"
    keeps = scored.drop.value <= drop if scored.keeps_budget is None else scored.keeps_budget
    return "within the budget" if keeps else "other model"
