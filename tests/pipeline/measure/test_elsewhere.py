"""Scores of a model that runs elsewhere: the same evaluation, streamed, and what became of it in pairs."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from pipeline.base.batches import Inputs, Outputs
from pipeline.context import Predict
from pipeline.errors import StageError
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.batching import Batches, examine
from pipeline.measure.elsewhere import OnlyHereError, evaluate_elsewhere, paired
from pipeline.task import Forward, Split, Task, classification, correct

VALUES = torch.randn(57, 6, generator=torch.Generator().manual_seed(0))
LABELS = VALUES.argmax(1)
TASK = classification(*[Split(TensorDataset(VALUES[a:b], LABELS[a:b])) for a, b in ((0, 5), (5, 20), (20, 57))])
BLURRED = torch.randn(6, 6, generator=torch.Generator().manual_seed(1)) * 0.3 + torch.eye(6)


class Linear:
    """A model at hand, and the same elsewhere."""

    form = "torch"
    matrix = BLURRED

    def predict(self, inputs: Inputs) -> Outputs:
        return {"other": -inputs["input"], "logits": inputs["input"] @ self.matrix}

    def elsewhere(self, batches: Iterable[Inputs]) -> Iterator[Outputs]:
        return map(self.predict, batches)


def tripled(forward: Forward, inputs: Inputs) -> Tensor:
    """Asks for other inputs than the task's."""
    return forward({"input": 3 * inputs["input"]})["logits"]


@pytest.mark.parametrize("changes", [{"output": "logits"}, {"decode": tripled}])
@pytest.mark.parametrize("batch", [1, 8, 256])
def test_the_evaluation_is_that_of_the_model_at_hand(changes: dict[str, Any], batch: int) -> None:
    task, model = replace(TASK, **changes), Linear()
    steps: list[int] = []
    here = examine(model, task, Batches(batch))  # type: ignore[arg-type]
    there = evaluate_elsewhere(model.elsewhere, task, batch, steps.append)
    assert sum(steps) == -(-37 // batch) - (-15 // batch)
    for name in ("predictions", "scores", "targets", "validation_scores"):
        assert torch.equal(getattr(there, name), getattr(here, name))
    assert (there.batch, there.resampled) == (batch, {})


def test_no_more_batches_are_held_than_are_asked_for_ahead() -> None:
    ahead: list[int] = []

    def scored(predictions: Tensor, targets: Tensor) -> Tensor:
        ahead[0] -= 1
        return correct(predictions, targets)

    def in_pieces(batches: Iterable[Inputs]) -> Iterator[Outputs]:
        ahead.append(0)
        waiting: list[Inputs] = []
        for inputs in batches:
            waiting.append(inputs)
            ahead[0] += 1
            assert ahead[0] <= 3
            if len(waiting) == 3:
                yield from Linear().elsewhere(waiting)
                waiting = []
        yield from Linear().elsewhere(waiting)

    evaluate_elsewhere(in_pieces, replace(TASK, output="logits", score=scored), 2)
    assert ahead == [0]


def twice(forward: Forward, inputs: Inputs) -> Tensor:
    return forward(inputs)["logits"] + forward(inputs)["logits"]


def drawing(forward: Forward, inputs: Inputs) -> Tensor:
    return forward({"input": inputs["input"] + torch.rand(1)})["logits"]


def guessing(forward: Forward, inputs: Inputs) -> Tensor:
    return inputs["input"]


@pytest.mark.parametrize(
    ("decode", "message"),
    [(twice, "more than once for a batch"), (drawing, "or each time otherwise"), (guessing, "asks the model nothing")],
)
def test_a_decode_that_needs_the_model_at_hand_is_told(decode: Callable[..., Tensor], message: str) -> None:
    with pytest.raises(OnlyHereError, match=rf"the task's decode.*it .*{message}"):
        evaluate_elsewhere(Linear().elsewhere, replace(TASK, decode=decode), 8)


def short(batches: Iterable[Inputs]) -> Iterator[Outputs]:
    yield from list(Linear().elsewhere(batches))[:-1]


def nan(batches: Iterable[Inputs]) -> Iterator[Outputs]:
    return ({"logits": outputs["logits"] * torch.nan} for outputs in Linear().elsewhere(batches))


def failing(batches: Iterable[Inputs]) -> Iterator[Outputs]:
    next(iter(batches))
    raise StageError("the process ended")
    yield {}


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (short, "validation: there is no answer to the batch with example 8"),
        (nan, "predictions are not finite"),
        (failing, "^the process ended$"),
    ],
)
def test_what_a_runtime_does_wrong_is_an_error(predict: Predict, message: str) -> None:
    with pytest.raises(StageError, match=message):
        evaluate_elsewhere(predict, replace(TASK, output="logits"), 8)


def evaluation(logits: Tensor, targets: Tensor) -> Evaluation:
    return Evaluation(logits, (logits.argmax(1) == targets).double(), targets=targets)


def test_what_is_lost_and_gained_is_counted_in_pairs() -> None:
    targets = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    before = torch.tensor([[2.0, 0], [0, 2], [2, 0], [0, 2], [0, 2], [0, 2], [2, 0], [2, 0]])  # 4 and 7 are wrong
    after = before.clone()
    after[[1, 2, 4]] = torch.tensor([[3.0, 0], [0, 1], [1, 0]])  # 1, surely, and 2 are lost; 4 is gained
    own = replace(evaluation(after, targets), validation_scores=torch.tensor([1.0, 0, 1, 1]))
    reference = evaluation(torch.nn.functional.one_hot(targets).double(), targets)
    reference = replace(reference, validation_scores=torch.ones(4))
    scored = paired(own, evaluation(before, targets), reference, TASK, lambda scores: bool(scores.mean() > 0.6))
    assert (scored.value, scored.validation, scored.lost, scored.gained) == (5 / 8, 3 / 4, 2, 1)
    assert (scored.changed, scored.worst, scored.difference, scored.keeps_budget) == (3 / 8, 1, None, True)
    assert scored.drop.value == 1 / 8
    assert scored.drop.low < 0 < 1 / 8 < scored.drop.high
    assert scored.retention
    assert scored.validation_retention
    assert (scored.retention.value, scored.validation_retention.value) == (5 / 8, 3 / 4)


def test_of_itself_nothing_changes_and_the_doubt_stays() -> None:
    own = evaluation(VALUES, LABELS)
    scored = paired(own, own, None, TASK)
    assert (scored.lost, scored.gained, scored.changed, scored.worst, scored.drop.value) == (0, 0, 0.0, None, 0.0)
    assert scored.drop.high > 0
    assert (scored.retention, scored.validation, scored.keeps_budget) == (None, None, None)


def test_a_decision_that_changes_from_wrong_to_wrong_is_one() -> None:
    targets = torch.tensor([2, 2])
    before, after = torch.tensor([[2.0, 0, 1], [0, 2, 1]]), torch.tensor([[0, 2.0, 1], [0, 2, 1]])
    scored = paired(evaluation(after, targets), evaluation(before, targets), None, TASK)
    assert (scored.lost, scored.gained, scored.changed) == (0, 0, 0.5)


def test_predictions_that_are_no_decisions_have_a_difference_of_their_range() -> None:
    def squared(values: Tensor) -> Evaluation:
        return Evaluation(values, -((values - 1) ** 2).double())

    task: Task = replace(TASK, logits=False)
    before, after = torch.tensor([0.0, 1.0, 4.0]), torch.tensor([0.0, 1.5, 4.0])
    scored = paired(squared(after), squared(before), None, task)
    assert (scored.changed, scored.lost, scored.worst) == (None, None, 1)
    assert scored.difference == pytest.approx(0.5 / 4)
    assert scored.drop.value == pytest.approx(0.25 / 3)
    assert paired(squared(before), squared(before), None, task).difference == 0
    with pytest.raises(StageError, match=r"have the shape \(2,\), and \(3,\) where it was measured"):
        paired(squared(before[:2]), squared(before), None, task)
