"""Whether what a model answers depends on the examples beside it: then it is measured as it is deployed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.forms.tracing import rounded_otherwise
from pipeline.measure.accuracy import BATCH_SIZE, Advance, Evaluation, evaluate_task, scores_on_validation
from pipeline.model import Model, OnnxModel, TorchModel
from pipeline.task import Split, Task

TRIED = 32
SIMILAR = 1e-3
"""Of the largest value: what sums in another order differ by at most."""
FEW = 0.05
"""Share of examples that may differ by more, such as a tie that rounding decides."""


class Batches(NamedTuple):
    """How many examples a model is given at a time, and how many in another trial, None where it does not matter."""

    batch: int
    other: int | None = None

    def count(self, task: Task) -> int:
        """How many batches `examine` takes."""
        of_validation = [-(-len(task.validation) // size) for size in self if size]
        return -(-len(task.test) // self.batch) + sum(of_validation)


def batches_for(model: Model, task: Task, asked: int | None = None) -> Batches:
    """With how many examples at a time a model is measured.

    A model depends on the batch where it takes ranges from the whole of it, as dynamic quantization does, where padding
    reaches what it answers, or where a graph mixes examples. Such a model is given one at a time unless `asked` says
    otherwise; all others many, which is faster.

    Args:
        model: in the form in which it is deployed.
        task: some examples of its validation split are tried.
        asked: examples at a time, as it will be deployed.
    """
    if isinstance(model, OnnxModel) and model.batch:  # the file takes no other
        return Batches(model.batch)
    if not depends_on_batch(model, task.validation, task.decode):
        return Batches(asked or BATCH_SIZE)
    batch = asked or 1
    return Batches(batch, BATCH_SIZE if batch == 1 else 1)


def depends_on_batch(model: Model, split: Split, decode: Callable[..., Tensor]) -> bool:
    """Whether predictions of examples one by one differ from those of the same examples together.

    Those of a torch model with quantized values may differ by what it makes when values between two integers go to the
    other one: sums in another order do that.
    """
    few = split.select(list(range(min(TRIED, len(split)))))
    alone, together = (_predictions(model, few, decode, size) for size in (1, TRIED))
    otherwise, rounding = rounded_otherwise(model.module) if isinstance(model, TorchModel) else None, 0.0
    if otherwise:
        with otherwise():
            rounded = _predictions(model, few, decode, TRIED)
        rounding = max(float((rounded[index] - together[index]).abs().max()) for index in together)
    differing = [not _similar(alone[index], together[index], rounding) for index in alone]
    return sum(differing) > FEW * len(differing)


def examine(model: Model, task: Task, batches: Batches, advance: Advance = lambda steps: None) -> Evaluation:
    """The evaluation on the test split, with the scores on validation, and those with the other batch."""
    evaluation = evaluate_task(model, task, task.test, advance, batches.batch)
    scores = scores_on_validation(model, task, batches.batch, advance)
    evaluation = replace(evaluation, validation_scores=scores, batch=batches.batch)
    if not batches.other:
        return evaluation
    other_scores = scores_on_validation(model, task, batches.other, advance)
    return replace(evaluation, other_batch=batches.other, other_scores=other_scores)


def batch_warning(evaluation: Evaluation, is_set: bool = False) -> str:
    """What there is to say of a model that decides otherwise in another batch; empty where it does not.

    Args:
        evaluation: what `examine` gave.
        is_set: whether the user said how many examples at a time.
    """
    scores, others = evaluation.validation_scores, evaluation.other_scores
    if scores is None or others is None or not (count := int((abs(scores - others) > SIMILAR).sum())):
        return ""
    fix = (
        f"Deploy it with {evaluation.batch} at a time, as `batch` says" if is_set else "Set `batch` to what is deployed"
    )
    return (
        f"its answers depend on the examples beside them: measured {evaluation.batch} at a time it scores "
        f"{float(scores.mean()):.4f} on validation, {evaluation.other_batch} at a time {float(others.mean()):.4f} "
        f"({count} of {len(scores)} examples score otherwise). {fix}"
    )


def _predictions(model: Model, split: Split, decode: Callable[..., Tensor], size: int) -> dict[int, Tensor]:
    """The prediction for each example, by its position."""
    predictions = dict[int, Tensor]()
    for batch in split.loader(size):
        predictions |= zip(batch.index.tolist(), decode(model.predict, batch.inputs).cpu(), strict=True)
    return predictions


def _similar(alone: Tensor, together: Any, rounding: float) -> bool:
    """Whether two predictions are the same, but for `rounding`; of one that padding made longer the front counts."""
    if alone.ndim != together.ndim:
        return False
    shared = tuple(slice(min(sizes)) for sizes in zip(alone.shape, together.shape, strict=True))
    one, other = alone[shared], together[shared]
    if not one.is_floating_point():
        return torch.equal(one, other)
    largest = max(float(one.abs().max()), float(other.abs().max())) if one.numel() else 0.0
    return bool((one - other).abs().max() <= max(SIMILAR * largest, rounding)) if one.numel() else True
