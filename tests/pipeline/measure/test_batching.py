"""What a model is given at a time when it is measured, and what is said of one whose answers depend on it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from pipeline.base.batches import Inputs, Outputs
from pipeline.errors import StageError
from pipeline.measure.accuracy import BATCH_SIZE, Evaluation, evaluate_task
from pipeline.measure.batching import Batches, batch_warning, batches_for, depends_on_batch, examine
from pipeline.model import OnnxModel, TorchModel
from pipeline.task import Split, Task, classification, correct, first_output
from tests.graphs import graph, node, tensors

VALUES = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
SPLIT = Split(TensorDataset(VALUES, VALUES.argmax(1)))


class Answers:
    """A model that answers by a function of the whole batch."""

    form = "torch"

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        self.answer = answer

    def predict(self, inputs: Inputs) -> Outputs:
        return {"output": self.answer(inputs["input"])}


def answers(answer: Callable[[Tensor], Tensor]) -> Any:
    return Answers(answer)


@pytest.mark.parametrize(
    ("answer", "depends"),
    [
        (lambda x: 2 * x, False),
        (lambda x: x + 1e-6 * len(x), False),  # what sums in another order may differ by
        (lambda x: x - x.mean(0), True),
        (lambda x: (x / x.abs().max() * 7).round(), True),  # a range of the whole batch
        (lambda x: x.argmax(1), False),
        (lambda x: (x - x.mean(0)).argmax(1), True),
        (lambda x: x[:, :, None].expand(-1, -1, 1 + len(x)), False),  # padded to the longest
    ],
)
def test_a_model_depends_on_the_batch_where_examples_alone_get_other_answers(answer: Any, depends: bool) -> None:
    assert depends_on_batch(answers(answer), SPLIT, first_output) is depends
    task = classification(SPLIT, SPLIT, SPLIT)
    expected = {None: Batches(1, BATCH_SIZE), 8: Batches(8, 1)} if depends else {None: (BATCH_SIZE, None), 8: (8, None)}
    assert {asked: batches_for(answers(answer), task, asked) for asked in (None, 8)} == expected


def test_dynamic_quantization_is_measured_as_it_answers_one_at_a_time(tmp_path: Path) -> None:
    """Examples whose sizes differ by a thousand: of a whole batch the small ones become zero."""
    x = VALUES * 10 ** torch.linspace(-3, 1, len(VALUES))[:, None]
    split = Split(TensorDataset(x, x.argmax(1)))
    weights = tensors(w=torch.eye(6).double().numpy())
    net = graph([node("MatMul", ["input", "w"], ["output"])], {"input": ["n", 6]}, {"output": ["n", 6]}, weights)
    (tmp_path / "net.onnx").write_bytes(net.SerializeToString())
    quantize_dynamic(tmp_path / "net.onnx", tmp_path / "int8.onnx", weight_type=QuantType.QInt8)
    model, task = OnnxModel(tmp_path / "int8.onnx", {"input": x[:2]}), classification(split, split, split)
    evaluation = examine(model, task, batches_for(model, task))
    one_by_one = torch.cat([model.predict({"input": row[None]})["output"] for row in x])
    assert torch.equal(evaluation.predictions, one_by_one)
    assert evaluation.scores.mean() > 0.9 > 0.7 > evaluation.other_scores.mean()
    evaluation.save(tmp_path / "kept.safetensors")
    loaded = Evaluation.load(tmp_path / "kept.safetensors")
    assert (loaded.batch, loaded.other_batch) == (1, BATCH_SIZE)
    text = batch_warning(loaded)
    assert f"measured 1 at a time it scores {float(evaluation.scores.mean()):.4f} on validation, 256 at a time" in text
    assert text.endswith("Set `batch` to what is deployed")
    assert batch_warning(loaded, is_set=True).endswith("Deploy it with 1 at a time, as `batch` says")
    assert not batch_warning(examine(model, task, Batches(1)))


def test_both_splits_are_looked_at_and_only_the_test_split_is_reported(
    task: Task, tiny: Callable[..., TorchModel]
) -> None:
    model, steps = tiny(), list[int]()
    found = examine(model, task, Batches(BATCH_SIZE), steps.append)
    alone = [evaluate_task(model, task, part) for part in (task.test, task.validation)]
    assert torch.equal(found.scores, alone[0].scores)
    assert torch.equal(found.predictions, alone[0].predictions)
    assert torch.equal(found.validation_scores, alone[1].scores)
    assert sum(steps) == 2  # batches of each


def test_a_score_that_fails_on_validation_alone_says_so(task: Task, tiny: Callable[..., TorchModel]) -> None:
    def score(predictions: Tensor, targets: Tensor) -> Tensor:
        if len(targets) == len(task.validation):
            raise ValueError("too few")
        return correct(predictions, targets)

    with pytest.raises(StageError, match="validation: the task's decode or score: ValueError: too few"):
        examine(tiny(), replace(task, score=score), Batches(BATCH_SIZE))


class Rounding(nn.Module):
    """Its values change by `shift` where an example is alone, and by up to a hundredth where it rounds otherwise."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift, self.noise = shift, 0.0

    def forward(self, x: Tensor) -> Tensor:
        return x + self.noise * torch.ones(len(x), 1) + (self.shift if len(x) == 1 else 0)

    @contextmanager
    def rounded_otherwise(self) -> Iterator[None]:
        self.noise = 0.01
        yield
        self.noise = 0.0


@pytest.mark.parametrize(("shift", "depends"), [(0.009, False), (0.011, True)])
def test_quantized_values_may_differ_by_what_rounding_them_otherwise_does(
    shift: float, depends: bool, tiny: Callable[..., TorchModel]
) -> None:
    model = replace(tiny(), module=Rounding(shift))
    split = Split(TensorDataset(VALUES / 10, VALUES.argmax(1)))  # so that a thousandth of the largest is less
    assert depends_on_batch(model, split, first_output) is depends
