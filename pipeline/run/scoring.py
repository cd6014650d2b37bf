"""Scores of models where they run otherwise than where they were measured, paired with what a run has measured."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.build.build import Built
from pipeline.context import Predict, Scored
from pipeline.gate.accuracy import keeps
from pipeline.gate.expected import load_expected
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.elsewhere import OnlyHereError, evaluate_elsewhere, paired
from pipeline.measure.statistics.pairs import Scores
from pipeline.model import Model

Progress = Callable[[str, int], AbstractContextManager[Callable[..., Any]]]
Scoring = Callable[[Model, Predict | None], Scored | str]
"""What a stage is given for it."""


@dataclass(frozen=True)
class Known:
    """A model with what is known of it.

    Args:
        model: told from others by identity.
        built: the task and the budget of its run.
        evaluation: gives what it gave where it was measured; None where it was not.
        baseline: the same of the reference.
    """

    model: Model
    built: Built
    evaluation: Callable[[], Evaluation | None]
    baseline: Callable[[], Evaluation | None]


def scored(known: Sequence[Known], progress: Progress, model: Model, predict: Predict | None) -> Scored | str:
    """How a model scores on test and validation where `predict` answers; see `Context.scored`.

    Args:
        known: the models that can be asked for.
        progress: progress(description, total), of batches.
        model: one of them.
        predict: None for what it gave where it was measured.

    Raises:
        StageError: what `predict` raises, or it does not give finite predictions of the same shape.
    """
    one = next((one for one in known if one.model is model), None)
    measured = one.evaluation() if one else None
    if one is None or measured is None:
        return "the model was not measured before, so there is no score to pair it with"
    task = one.built.task
    if task.test.varies or task.validation.varies:
        return "the examples of test or validation are others each time that they are read"
    if predict:
        batches = sum(-(-len(split) // measured.batch) for split in (task.test, task.validation))
        try:
            with progress("scoring", batches) as advance:
                own = evaluate_elsewhere(predict, task, measured.batch, advance)
        except OnlyHereError as error:
            return str(error)
    else:
        own = measured
    return in_pairs(one.built, own, measured, one.baseline())


def in_pairs(built: Built, own: Evaluation, measured: Evaluation, baseline: Evaluation | None) -> Scored:
    """What a model gives elsewhere, in pairs with what it gave where it was measured and with the baseline."""
    config = built.config
    scores = baseline.scores.numpy() if baseline else None
    kept = partial(keeps, config.budget, baseline=scores, committed=_committed(built), seed=config.seed)
    return paired(own, measured, baseline, built.task, kept, config.seed)


def _committed(built: Built) -> Scores | None:
    """The committed model's scores on this test split, where a limit is told of it."""
    expected = load_expected(built.config.budget, built.config.folder)
    if not expected or not expected.scores or expected.digests.get("test") != built.data["test"].digest:
        return None
    return expected.scores.scores()
