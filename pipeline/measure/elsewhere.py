"""How a model scores where it runs otherwise than where it was measured, such as in another runtime.

The same examples are decoded and scored in the same way, and paired with what the model gave where it was measured.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import torch

from pipeline.base.batches import Inputs, Outputs
from pipeline.base.estimate import Estimate
from pipeline.context import Predict, Scored
from pipeline.errors import StageError, blame
from pipeline.measure.accuracy import Advance, Asked, Evaluation, Scoring, evaluate_batches, scores_of
from pipeline.measure.agreement import agreeing
from pipeline.measure.flips import worst_first
from pipeline.measure.statistics.means import drop, retention
from pipeline.measure.statistics.pairs import Scores, is_right_or_wrong, pairs
from pipeline.task import Forward, Split, Task

ONE_CALL = "it asks the model more than once for a batch, or each time otherwise"


class OnlyHereError(StageError):
    """The task can be evaluated with the model at hand alone."""


def evaluate_elsewhere(predict: Predict, task: Task, batch: int, advance: Advance = lambda steps: None) -> Evaluation:
    """The evaluation on the test split, with the scores on validation and without metrics, of what `predict` answers.

    It is asked once, for all batches of both splits. No more than it asks for ahead is held of these; they are read
    twice from the task.

    Args:
        predict: see `Predict`.
        task: its decode may ask the model once a batch, for whatever inputs.
        batch: examples at a time.
        advance: told of each batch.

    Raises:
        OnlyHereError: decode does otherwise.
        StageError: there are fewer answers than batches, predictions hold NaN; what `predict` raises.
    """
    sent, scoring = deque[bytes](), replace(Scoring.of(task), metrics={})
    splits = task.test, task.validation
    answers = predict(_questions(one.inputs, task, sent) for split in splits for one in split.loader(batch))
    on_test, on_validation = (_answered(split, batch, answers, sent) for split in splits)
    evaluation = evaluate_batches(on_test, scoring, advance)
    with blame(StageError, "validation"):
        scores = scores_of(on_validation, scoring, advance)
    return replace(evaluation, validation_scores=scores, batch=batch)


def paired(
    own: Evaluation,
    measured: Evaluation,
    baseline: Evaluation | None,
    task: Task,
    keeps: Callable[[Scores], bool | None] = lambda scores: None,
    seed: int = 0,
) -> Scored:
    """What became of a model's score where it runs otherwise.

    Args:
        own: what it gives there.
        measured: what it gave where it was measured.
        baseline: of the reference, for retention.
        task: whether predictions are logits.
        keeps: whether test scores (N,) keep the limits of a budget; None where there is none to look at.
        seed: of the bootstrap.

    Raises:
        StageError: its predictions are of another shape.
    """
    changed, difference = differing(own, measured, task)
    scores, before = own.scores.numpy(), measured.scores.numpy()
    table = pairs(scores, before) if is_right_or_wrong(scores, before) else None
    lost = worst_first(measured, own, task.logits)
    on_validation = own.validation_scores
    return Scored(
        value=float(scores.mean()),
        validation=None if on_validation is None else float(on_validation.mean()),
        retention=_retention(own.scores, baseline.scores if baseline else None, seed),
        validation_retention=_retention(on_validation, baseline.validation_scores if baseline else None, seed),
        drop=drop(scores, before, seed),
        lost=table.lost if table else None,
        gained=table.gained if table else None,
        changed=changed,
        difference=difference,
        worst=lost[0].index if lost else None,
        keeps_budget=keeps(scores),
    )


def _retention(scores: torch.Tensor | None, baseline: torch.Tensor | None, seed: int) -> Estimate | None:
    return None if scores is None or baseline is None else retention(scores.numpy(), baseline.numpy(), seed)


def differing(own: Evaluation, measured: Evaluation, task: Task) -> tuple[float | None, float | None]:
    """The share of examples with another decision; else the largest difference as a share of the range."""
    ours, theirs = own.predictions, measured.predictions
    if ours.is_floating_point() and ours.shape != theirs.shape:
        problem = f"its predictions have the shape {tuple(ours.shape)}, and {tuple(theirs.shape)} where it was measured"
        raise StageError(problem)
    if task.logits or not ours.is_floating_point():
        same = agreeing(ours, theirs, task.labelling if task.logits else None, own.targets)
        return float((same < 1).double().mean()) if len(same) else 0.0, None
    values = theirs.double()
    spread = float(values.max() - values.min()) or max(float(values.abs().max()), 1.0)
    return None, float((ours.double() - values).abs().max()) / spread


class _Asked(Exception):
    """What a decode gives to the model."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.inputs = inputs


def _questions(inputs: Inputs, task: Task, sent: deque[bytes]) -> Inputs:
    """What the task's decode asks for a batch; its digest is added to `sent`."""

    def forward(asked: Inputs) -> Outputs:
        raise _Asked(asked)

    with blame(StageError, "the task's decode"):
        try:
            task.decode(forward, inputs)
        except _Asked as question:
            sent.append(_digest(question.inputs))
            return question.inputs
        raise OnlyHereError("it asks the model nothing")


def _answered(split: Split, size: int, answers: Iterator[Outputs], sent: deque[bytes]) -> Iterator[Asked]:
    """The batches of a split, each with what gives the answer to it, once."""
    for batch in split.loader(size):
        outputs = next(answers, None)
        if outputs is None:
            raise StageError(f"there is no answer to the batch with example {int(batch.index[0])}")
        yield batch, _once(outputs, sent.popleft())


def _once(outputs: Outputs, digest: bytes) -> Forward:
    waiting = [outputs]

    def forward(inputs: Inputs) -> Outputs:
        if not waiting or _digest(inputs) != digest:
            raise OnlyHereError(ONE_CALL)
        return waiting.pop()

    return forward


def _digest(inputs: Inputs) -> bytes:
    digest = blake2b()
    for name, value in inputs.items():
        array = np.ascontiguousarray(value.cpu().numpy())
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.data)
    return digest.digest()
