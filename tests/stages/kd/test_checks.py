"""What is told of a distillation before anything is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_model

from pipeline.base.use import Reference, find
from pipeline.errors import Note
from pipeline.model import TorchModel
from pipeline.runner import run
from stages.distill.combine import CombinedDistillation
from stages.distill.itself import SelfDistillation
from stages.distill.logits import LogitDistillation
from stages.prune.channels import ChannelPruning
from tests.aliases import Make
from tests.contexts import preview_of, refused
from tests.trained import tiny_student

STUDENT = tiny_student()


@pytest.mark.parametrize(("terms", "share"), [
    ([{"use": "labels", "start": 0.1}], "0%"),
    ([{"use": "labels", "end": 0.4}, {"use": "logits", "start": 0.5}], "40%"),
    ([{"use": "labels", "end": 0.5}, {"use": "logits", "weight": 0, "start": 0.5}], "50%"),
])  # fmt: skip
def test_a_part_of_the_training_without_a_term_is_refused(tiny: Make, terms: Any, share: str) -> None:
    stage = CombinedDistillation(student=STUDENT, terms=terms)
    refused(f"no term counts after {share} of the training", stage.check((), preview_of(tiny())))


@pytest.mark.parametrize(("grow", "expected"), [(None, 1), ({"argument": "width", "sizes": [1, 2, 4]}, 0)])
def test_a_student_that_grows_is_not_told_to(tiny: Make, grow: Any, expected: int) -> None:
    said = LogitDistillation(student=tiny_student(1), grow=grow).check((), preview_of(tiny(64)))
    assert len([text for text in said if "let it `grow`" in text]) == expected


def test_a_term_that_rises_from_zero_trains_from_the_first_step(tiny: Make, context: Make) -> None:
    stage = CombinedDistillation(student=STUDENT, terms=[{"use": "logits", "ramp": "up"}], epochs=1)
    assert stage.run(tiny(16), context()).builder.arguments == {"width": 4}


def test_layers_that_do_not_fit_are_refused_before_work(tiny: Make) -> None:
    stage = CombinedDistillation(student=STUDENT, terms=[{"use": "features", "layers": [["conv2", "head"]]}])
    refused(r"conv2 and head give \(2, 4, 8, 8\) and \(2, 4\)", stage.check((), preview_of(tiny())))


def test_the_terms_of_a_recovery_are_checked_too(tiny: Make) -> None:
    stage = ChannelPruning(macs=0.5, recovery={"terms": [{"use": "features", "layers": [["conv2", "conv3"]]}]})
    refused("the teacher has no layer `conv3`; did you mean `conv2`", stage.check((), preview_of(tiny())))


def test_a_recovery_learns_by_any_terms(tiny: Make, context: Make) -> None:
    terms = [{"use": "features", "layers": [["conv2", "conv2"]], "end": 0.5}, {"use": "logits", "start": 0.5}]
    made = ChannelPruning(macs=0.5, round_to=1, recovery={"epochs": 2, "terms": terms}).run(tiny(), context())
    assert made.module.conv2.out_channels < 8  # type: ignore[union-attr]
    assert set(made.module.state_dict()) == set(tiny().module.state_dict())


def test_the_plan_says_in_which_part_the_teacher_runs_in_every_step(tiny: Make) -> None:
    terms = [{"use": "features", "layers": [["conv2", "conv2"]], "end": 0.25}, {"use": "logits", "start": 0.25}]
    stage = CombinedDistillation(student=STUDENT, terms=terms)
    note, layers = [text for text in stage.check((), preview_of(tiny())) if isinstance(text, Note)]
    assert layers == "layers learn: `conv2` from `conv2`"
    assert note == (
        "the teacher runs once an example; its logits take 4.1 kB on disk, and in every step of the first 25%, "
        "where its layers are looked at"
    )


def test_the_student_of_a_growing_stage_teaches_the_next(tiny: Make) -> None:
    grown = LogitDistillation(student=STUDENT, grow={"argument": "width", "sizes": [2, 6]})
    said = LogitDistillation(student=STUDENT).check((grown,), preview_of(tiny()))
    assert all(isinstance(text, Note) for text in said)


DEEP = """
from torch import nn

def deep():
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)) for _ in range(3)))
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), blocks, nn.Linear(8, 4))
"""


def test_a_generation_may_be_the_teacher_with_fewer_layers(context: Make, tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text(DEEP)
    model = TorchModel.build(Reference(use="deep.py:deep", folder=tmp_path), {"input": torch.rand(2, 1, 8, 8)})
    stage = SelfDistillation(student={"shrink_of": "teacher", "layers": 2}, generations=2, epochs=1)
    made = stage.run(model, context())
    assert len(made.module[2]) == 2  # type: ignore[index, arg-type]


def test_a_teacher_may_lie_anywhere(project: Make, tmp_path: Path) -> None:
    chain = project()
    save_model(find("models.py:TinyNet", chain.parent)(16), str(tmp_path / "far.safetensors"))
    teacher = f"{{use: models.py:TinyNet, width: 16, weights: {tmp_path / 'far.safetensors'}}}"
    text = chain.read_text().replace("epochs: 2, learning_rate: 0.01}\n  - {use: export.onnx}", "epochs: 1}")
    chain.write_text(text.replace("distill.logits,", f"distill.logits, teachers: [{teacher}],"))
    assert run(chain, runs=tmp_path / "runs", track=False).stages[0].name == "distill.logits"
