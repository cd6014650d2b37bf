"""Zeros that are marked stay zero in every training; others do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.base.use import Reference
from pipeline.errors import Interruption, StageError
from pipeline.model import TorchModel
from pipeline.run.roundtrip import save_exactly
from stages.distill.logits import LogitDistillation
from stages.kd.student import Student, untrained
from stages.train.supervised import SupervisedTraining
from stages.trainer.zeros import USE, held, hold, structural
from tests.contexts import bare_context

HERE = Path(__file__).parents[2]
NAMES = ["conv1.weight", "conv2.weight", "head.weight"]


def pruned(names: list[str] = NAMES) -> TorchModel:
    """The tiny network with half of these weights zero, and the zeros marked."""
    torch.manual_seed(0)
    builder = Reference(use="conftest.py:TinyNet", arguments={"width": 8}, folder=HERE)
    model = TorchModel.build(builder, {"input": torch.rand(2, 1, 8, 8)}).edited(USE, weights=[*names])
    for name in names:
        weight = model.module.get_parameter(name).data
        weight[torch.rand_like(weight) < 0.5] = 0
    return model


def zeros(model: TorchModel, name: str) -> torch.Tensor:
    return model.module.get_parameter(name) == 0


def assert_held(before: TorchModel, after: TorchModel) -> None:
    for name in NAMES:
        assert torch.equal(zeros(before, name), zeros(after, name))
        assert not torch.equal(before.module.get_parameter(name), after.module.get_parameter(name))


@pytest.mark.parametrize("settings", [
    {},
    {"optimizer": "sgd", "weight_decay": 0.1, "learning_rate": 0.05},
    {"accumulate": 2, "channels_last": True, "weight_decay": 0.3},
    {"precision": "bf16", "gradient_clip": 0.01},
])  # fmt: skip
def test_zeros_stay_whatever_the_optimizer(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = pruned()
    assert_held(model, SupervisedTraining(epochs=2, **settings).run(model, bare_context(tmp_path)))


def test_zeros_that_are_not_marked_are_trained(tmp_path: Path) -> None:
    model = pruned(["conv1.weight"])
    model.module.get_parameter("head.weight").data[:, :3] = 0
    result = SupervisedTraining(epochs=1).run(model, bare_context(tmp_path))
    assert torch.equal(zeros(result, "conv1.weight"), zeros(model, "conv1.weight"))
    assert not zeros(result, "head.weight").any()


def test_they_stay_where_a_training_goes_on_and_in_the_student_that_came_in(tmp_path: Path) -> None:
    model = pruned()
    save_exactly(model, tmp_path / "saved", HERE)
    loaded = TorchModel.load(tmp_path / "saved", HERE)
    assert [*held(loaded.module)] == NAMES
    stage = LogitDistillation(student=Student(use="incoming"), teacher="baseline", epochs=2)
    calls = iter(range(99))
    ctx: Callable[..., Any] = lambda **more: bare_context(tmp_path, baseline=pruned(), **more)  # noqa: E731
    with pytest.raises(Interruption):
        stage.run(loaded, ctx(interrupted=lambda: next(calls) == 5))
    assert_held(loaded, stage.run(loaded, ctx()))


def test_a_student_that_is_built_anew_has_no_marks() -> None:
    model = pruned()
    assert not held(untrained(model).module)
    assert not structural(model.edits)
    wider = Student(shrink_of="teacher", arguments={"width": 4}).build(model, model.example)
    assert not held(wider.module)


def test_a_parameter_that_there_is_not_is_refused_and_one_of_the_module_itself_is_marked() -> None:
    layer = torch.nn.Linear(2, 3)
    assert [*held(hold(hold(layer, ["weight"]), ["weight", "bias"]))] == ["weight", "bias"]
    with pytest.raises(StageError, match="no parameter `wight`"):
        hold(layer, ["wight"])
