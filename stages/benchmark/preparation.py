"""What runtimes make of the models before anything is timed: converted, examined, scored."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.model import Model
from stages.benchmark.answers.agreement import Agreement, Examination
from stages.benchmark.answers.scores import Score, Scores
from stages.benchmark.conversion import Conversion
from stages.benchmark.processes.process import Spec
from stages.benchmark.timing.rounds import AGAIN, BASELINE, Failures, Participant


@dataclass(frozen=True)
class Prepared:
    """What a runtime makes of all models.

    Args:
        specs: by batch, of each process of a round, without threads.
        agreements: how it answers beside ONNX Runtime, by the model's name.
        scores: how models score in it, by their names.
        baseline: how that scores in it.
        failures: of models that it cannot take.
        reason: why there is no baseline, if there is none.
    """

    specs: dict[Participant, dict[int, Spec]] = field(default_factory=dict)
    agreements: dict[str, Agreement] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)
    baseline: Score | None = None
    failures: Failures = field(default_factory=Failures)
    reason: str = ""


@dataclass(frozen=True)
class Preparation:
    """What is equal for all runtimes.

    Args:
        models: by name.
        threads: of those that answer.
        examination: how each answers beside ONNX Runtime.
        scores: how models score there.
    """

    models: Mapping[str, Model]
    threads: int
    examination: Examination
    scores: Scores

    def of(self, conversion: Conversion, folder: Path) -> Prepared:
        """What the runtime of a conversion makes of all models and of the baseline; `folder` is for what is written."""
        prepared, ctx = Prepared(), conversion.ctx
        if reason := conversion.runtime.lacks():
            for name in self.models:
                prepared.failures.take(Participant("model", name), StageError(reason))
            return replace(prepared, reason=reason)
        for i, name in enumerate(self.models):
            with prepared.failures.catching(Participant("model", name), ctx.interrupted):
                self._prepare(name, conversion, folder / f"model-{i}", prepared)
        if ctx.baseline is None:
            return replace(prepared, reason="there is no baseline yet")
        try:
            conversion.runtime.accepts(ctx.baseline, conversion.sizes)
        except StageError as error:
            return replace(prepared, reason=f"the baseline cannot be timed here: {error.found}")
        with prepared.failures.catching(BASELINE, ctx.interrupted):
            specs = conversion.specs(ctx.baseline, folder / "baseline")
            score = self.scores.of(BASELINE, ctx.baseline, conversion.runtime, specs)
            return replace(prepared, specs={BASELINE: specs, **prepared.specs, AGAIN: specs}, baseline=score)
        return prepared

    def _prepare(self, name: str, conversion: Conversion, folder: Path, prepared: Prepared) -> None:
        """Add what becomes of a model. Raises StageError, ResourceError where the runtime does not take it."""
        runtime, model, member = conversion.runtime, self.models[name], Participant("model", name)
        runtime.accepts(model, conversion.sizes)
        specs = conversion.specs(model, folder)
        if self.examination.examples and not isinstance(model, Seq2SeqOnnx) and not runtime.answers_as_reference:
            spec = {**specs[self.examination.batch], "threads": self.threads}
            prepared.agreements[name] = self.examination.of(name, model, runtime, spec)
        prepared.scores[name] = self.scores.of(member, model, runtime, specs)
        prepared.specs[member] = specs


def generation(models: Mapping[str, Model], ctx: Context) -> dict[str, Any] | None:
    """How to generate, where one of the models is an encoder-decoder's files: then all of them do, the baseline too.

    Each generates as many tokens, whatever they are. One that is a single graph is given the whole prefix every time.

    Raises:
        StageError: by a beam search, which is not timed.
    """
    writers = [model for model in (*models.values(), ctx.baseline) if isinstance(model, Seq2SeqOnnx)]
    if not writers:
        return None
    if any(model.settings.get("num_beams", 1) > 1 for model in writers):
        raise StageError("a beam search is not timed", expected="`beams: 1` of export.seq2seq")
    return {"tokens": writers[0].tokens, "settings": writers[0].settings}
