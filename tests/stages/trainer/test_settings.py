"""Precision and accumulation: what is computed how, and that the weights stay what they are."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.base.batches import Outputs
from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.model import TorchModel
from stages.trainer.loop import train
from stages.trainer.objective import Supervised
from stages.trainer.settings import TrainingSettings, mixed_precision
from tests.aliases import Make
from tests.trained import weights

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 32, "learning_rate": 0.01}


@pytest.mark.parametrize(("precision", "device", "bf16", "expected"), [
    ("auto", "cpu", True, "no"),
    ("auto", "cuda", True, "bf16"),
    ("auto", "cuda", False, "fp16"),
    ("fp32", "cuda", True, "no"),
    ("bf16", "cpu", False, "bf16"),
    ("fp16", "cuda", True, "fp16"),
])  # fmt: skip
def test_the_precision_is_what_the_device_has(
    monkeypatch: pytest.MonkeyPatch, precision: Any, device: str, bf16: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    found: Any = SimpleNamespace(type=device)
    assert mixed_precision(TrainingSettings(precision=precision), found) == expected


def fitted(model: TorchModel, ctx: Context, **settings: Any) -> Tensor:
    """The weights after a training."""
    return weights(train(model, Supervised(ctx), TrainingSettings(**QUICK, optimizer="sgd", **settings), ctx))


@pytest.mark.parametrize(("settings", "message"), [
    ({"precision": "fp16"}, "`precision` is fp16 on a CPU; expected a GPU for fp16"),
    ({"accumulate": 5}, "a batch of 32 cannot be split into 5 equal parts"),
])  # fmt: skip
def test_what_cannot_be_trained_is_refused(tiny: Make, context: Make, settings: Any, message: str) -> None:
    with pytest.raises(StageError, match=message):
        fitted(tiny(), context(), **settings)


def test_bf16_computes_in_bf16_and_keeps_the_weights_in_fp32(tiny: Make, context: Make) -> None:
    inner: list[torch.dtype] = []

    def loss(outputs: Outputs, targets: Tensor) -> Tensor:
        inner.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        return torch.nn.functional.cross_entropy(outputs["output"], targets)

    ours, theirs = (fitted(tiny(), context(loss=loss), precision=precision) for precision in ("bf16", "fp32"))
    assert (inner[0], inner[-1]) == (torch.bfloat16, torch.float32)
    assert ours.dtype == torch.float32
    assert not torch.equal(ours, theirs)
    torch.testing.assert_close(ours, theirs, rtol=0.1, atol=0.01)
