"""What a model gives without some of its layers, and students that do not give it."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.base.use import Reference
from pipeline.errors import ConfigError
from pipeline.model import TorchModel
from stages.kd.inspection.skipped import predicted_without
from stages.kd.student import Student


class Block(nn.Module):
    """Writes into what it is given, and gives a weight beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.relu_() + self.two(self.one(x)), x.sum()


class Deep(nn.Module):
    """Four blocks, and an output that may go by their number."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.blocks, self.scaled = nn.ModuleList(Block() for _ in range(4)), scaled

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        for block in self.blocks:
            x, _ = block(x)
        return x / len(self.blocks) if self.scaled else x


def deep(scaled: bool) -> TorchModel:
    return TorchModel(Deep(scaled), {"input": torch.randn(8, 4)}, Reference(use="none"))


def test_skipped_layers_hand_on_what_they_are_given():
    model = deep(scaled=False)
    x = model.example["input"]
    first, third = model.module.blocks[0], model.module.blocks[2]
    assert torch.equal(predicted_without(model, {"blocks": [0, 2]})["output"], third(first(x.clone())[0])[0])
    assert "forward" not in vars(model.module.blocks[1])


def test_a_student_gives_what_the_teacher_gives_without_the_layers_or_is_refused():
    model = deep(scaled=False)
    student = Student(shrink_of="teacher", layers=2).build(model, model.example)
    assert torch.equal(student.predict(model.example)["output"], predicted_without(model, {"blocks": [0, 2]})["output"])
    scaled = deep(scaled=True)
    with pytest.raises(ConfigError, match=r"fewer layers in `blocks`: its output `output` has other values; expected"):
        Student(shrink_of="teacher", layers=2).build(scaled, scaled.example)
