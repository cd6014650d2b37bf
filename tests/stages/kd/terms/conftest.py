"""A method's loss on two modules, outside any training."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.base.batches import Inputs
from pipeline.errors import ConfigError
from pipeline.model import call
from pipeline.task import Batch
from stages.kd.inspection.hooks import Hooks
from stages.kd.terms.term import Method, ModelOutputs, TermInputs
from tests.contexts import preview_of

Comparison = tuple[Tensor, list[nn.Module]]


@pytest.fixture
def compare() -> Callable[..., Comparison]:
    """compare(method, student, teachers, inputs, shares=...): the loss, and the adapters that were made for it."""

    def run(method: Method, student: nn.Module, teachers: Any, inputs: Inputs, shares: Any = (1.0,)) -> Comparison:
        torch.manual_seed(1)
        watched = [method.watch(student, teacher) for teacher in teachers]
        ours = [Hooks(student, mine) for mine, _ in watched]
        theirs = [Hooks(teacher, hooks) for teacher, (_, hooks) in zip(teachers, watched, strict=True)]
        outputs, given = call(student, inputs), [call(teacher, inputs) for teacher in teachers]
        students = tuple(ModelOutputs(outputs, hooks.take()) for hooks in ours)
        seen = tuple(ModelOutputs(out, hooks.take()) for out, hooks in zip(given, theirs, strict=True))
        dtype = next(student.parameters()).dtype
        adapters = [method.adapter(mine, its).to(dtype) for mine, its in zip(students, seen, strict=True)]
        inputs = TermInputs(Batch(torch.arange(2), inputs, None), outputs, students, seen, shares, "logits", no_labels)
        loss = method.loss(inputs, adapters)
        for hooks in ours + theirs:
            hooks.remove()
        return loss, adapters

    return run


def no_labels(outputs: Any, targets: Any) -> Tensor:
    raise AssertionError("the labels were read")


@pytest.fixture
def refused() -> Callable[..., None]:
    """refused(message, method, student, teacher): before any work, with that message."""

    def check(message: str, method: Method, student: nn.Module, teacher: nn.Module) -> None:
        with pytest.raises(ConfigError, match=message):
            list(method.check_models(student, [teacher], preview_of(None)))

    return check
