"""One evaluation for both forms, a score an example, and comparisons in pairs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import TensorDataset

from pipeline.base.targets.labelling import Labelling
from pipeline.deploy import deploy
from pipeline.errors import StageError
from pipeline.measure.accuracy import BATCH_SIZE, Evaluation, Scoring, evaluate, evaluate_task, mean_score
from pipeline.measure.agreement import compare
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import Split, Task, correct, first_output
from tests.contexts import Table

SIZE = BATCH_SIZE + 44


def split(targets: Any) -> Split:
    return Split(TensorDataset(torch.arange(len(targets))[:, None], targets))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_both_forms_give_the_same_evaluation(task: Task, tiny: Callable[..., TorchModel], tmp_path: Path) -> None:
    model = tiny()
    ours = evaluate_task(model, task, task.test)
    theirs = evaluate_task(deploy(model, tmp_path / "model.onnx"), task, task.test)
    assert torch.equal(ours.scores, theirs.scores)
    assert torch.allclose(ours.predictions, theirs.predictions, atol=1e-5)
    assert mean_score(model, task.test, decode=task.decode, score=task.score) == ours.scores.mean().item()
    found = compare(ours, theirs, labelling=Labelling())
    assert (found["agreement"], found["retention"].value) == (1.0, 1.0)
    assert (found["flips"], found["mcnemar_p"]) == ({"lost": 0, "gained": 0}, 1.0)
    assert found["kl_mean"] == pytest.approx(0, abs=1e-9)


def test_scores_are_those_of_the_examples_in_order_across_batches() -> None:
    rows, targets = draw(SIZE, 3), torch.arange(SIZE) % 3
    found = evaluate(Table(rows), split(targets), Scoring(first_output, correct))
    assert torch.equal(found.predictions, rows)
    assert torch.equal(found.scores, (rows.argmax(-1) == targets).double())


def test_a_metric_sees_the_whole_split_at_once() -> None:
    rows, targets = draw(SIZE), draw(SIZE, seed=1)

    def spearman(predictions: Tensor, targets: Tensor) -> float:
        ranks = [x.argsort().argsort().double() for x in (predictions, targets)]
        return float(torch.corrcoef(torch.stack(ranks))[0, 1])

    def score(predictions: Tensor, targets: Tensor) -> Tensor:
        return -((predictions - targets) ** 2)

    found = evaluate(Table(rows), split(targets), Scoring(first_output, score, {"spearman": spearman}))
    estimate = found.metrics["spearman"]
    assert estimate.value == pytest.approx(spearman(rows, targets))
    assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_predictions_that_are_not_finite_are_an_error(value: float) -> None:
    rows = draw(SIZE, 3)
    rows[-1, 1] = value
    with pytest.raises(StageError, match="the model's predictions are not finite; expected no NaN"):
        evaluate(Table(rows), split(torch.zeros(SIZE, dtype=torch.int64)), Scoring(first_output, correct))


def failing(predictions: Tensor, targets: Tensor) -> Tensor:
    raise KeyError("logits")


@pytest.mark.parametrize(("decode", "score", "message"), [
    (first_output, lambda p, t: correct(p, t).sum(),
     r"score gave a tensor of shape \(\); expected finite numbers of shape \(5,\)"),
    (first_output, lambda p, t: correct(p, t).log(), r"score gave a tensor of shape \(5,\); expected finite numbers"),
    (first_output, failing, r"the task's decode or score: KeyError: 'logits'"),
    (lambda forward, inputs: forward(inputs)["output"][-1:], correct,
     r"decode gave a tensor of shape \(1, 3\); expected a tensor \(5, \.\.\.\)"),
])  # fmt: skip
def test_a_decode_or_score_that_goes_wrong_is_an_error(decode: Any, score: Any, message: str) -> None:
    with pytest.raises(StageError, match=message):
        evaluate(Table(draw(5, 3)), split(torch.arange(5) % 3), Scoring(decode, score))


def test_an_evaluation_is_saved_and_loaded(tmp_path: Path) -> None:
    rest = {"targets": torch.arange(6), "validation_scores": torch.rand(4).double()}
    found = Evaluation(draw(6, 3).T.contiguous().T, torch.rand(6).double(), **rest)
    found.save(tmp_path / "predictions.safetensors")
    loaded = Evaluation.load(tmp_path / "predictions.safetensors")
    for name in ("predictions", "scores", *rest):
        assert torch.equal(getattr(loaded, name), getattr(found, name))


def test_a_file_of_an_earlier_version_has_predictions_and_scores_alone(tmp_path: Path) -> None:
    rows, scores = draw(6, 3), torch.rand(6).double()
    save_file({"predictions": rows, "scores": scores}, tmp_path / "predictions.safetensors")
    loaded = Evaluation.load(tmp_path / "predictions.safetensors")
    assert torch.equal(loaded.predictions, rows)
    assert (loaded.targets, loaded.validation_scores) == (None, None)


@pytest.mark.parametrize(("targets", "kept"), [
    (torch.arange(SIZE) % 3, True),
    ((torch.arange(SIZE) % 3).to(torch.int32), True),
    (torch.rand(SIZE), False),
    (torch.zeros(SIZE, 2, dtype=torch.int64), False),
    (torch.zeros(SIZE, dtype=torch.bool), True),
], ids=["class numbers", "short ones", "real numbers", "tokens", "flags"])  # fmt: skip
def test_targets_are_kept_where_they_are_class_numbers(targets: Tensor, kept: bool) -> None:
    def score(predictions: Tensor, targets: Tensor) -> Tensor:
        return torch.ones(len(targets))

    def metric(predictions: Tensor, targets: Tensor) -> float:
        return float(targets.double().mean())

    for metrics in ({}, {"mean": metric}):
        scoring = Scoring(first_output, score, metrics, labelling=Labelling())
        found = evaluate(Table(draw(SIZE, 3)), split(targets), scoring)
        assert (found.targets is not None) == kept
        if found.targets is not None:
            assert torch.equal(found.targets, targets.long())


def test_a_metric_that_raises_is_blamed_on_the_task() -> None:
    metrics: Any = {"f1": failing}
    with pytest.raises(StageError, match=r"f1.*KeyError: 'logits'"):
        evaluate(Table(draw(5, 3)), split(torch.arange(5) % 3), Scoring(first_output, correct, metrics))


def test_an_onnx_file_that_gives_nan_is_an_error(task: Task, tiny: Callable[..., TorchModel], tmp_path: Path) -> None:
    model = tiny()
    model.module.head.bias.data[2] = float("nan")
    broken = deploy(model, tmp_path / "nan.onnx")
    assert isinstance(broken, OnnxModel)
    with pytest.raises(StageError, match="predictions are not finite"):
        evaluate_task(broken, task, task.validation)
