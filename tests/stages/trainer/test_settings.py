"""Precision and accumulation: what is computed how, and that the weights stay what they are."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.base.batches import Outputs
from pipeline.errors import StageError
from stages.trainer.loop import train
from stages.trainer.objective import Supervised
from stages.trainer.settings import TrainingSettings, mixed_precision
from tests.aliases import Make

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


def test_half_precision_on_a_cpu_is_refused(tiny: Make, context: Make) -> None:
    ctx = context()
    with pytest.raises(StageError, match="`precision` is fp16 on a CPU; expected a GPU for fp16"):
        train(tiny(), Supervised(ctx), TrainingSettings(**QUICK, precision="fp16"), ctx)


def test_bf16_computes_in_bf16_and_keeps_the_weights_in_fp32(tiny: Make, context: Make) -> None:
    inner: list[torch.dtype] = []

    def loss(outputs: Outputs, targets: Tensor) -> Tensor:
        inner.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        return torch.nn.functional.cross_entropy(outputs["output"], targets)

    weights = []
    for precision in ("bf16", "fp32"):
        ctx = context(loss=loss)
        made = train(tiny(), Supervised(ctx), TrainingSettings(**QUICK, precision=precision, optimizer="sgd"), ctx)  # type: ignore[arg-type]
        weights.append(torch.cat([p.detach().flatten() for p in made.module.parameters()]))
    assert inner[0] == torch.bfloat16
    assert inner[-1] == torch.float32
    assert weights[0].dtype == torch.float32
    assert not torch.equal(*weights)
    torch.testing.assert_close(*weights, rtol=0.1, atol=0.01)


def test_a_batch_in_parts_gives_the_weights_of_the_whole(tiny: Make, context: Make) -> None:
    weights = []
    for accumulate in (1, 4):
        ctx = context()
        made = train(tiny(), Supervised(ctx), TrainingSettings(**QUICK, accumulate=accumulate, optimizer="sgd"), ctx)
        weights.append(torch.cat([p.detach().flatten() for p in made.module.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


def test_a_batch_that_cannot_be_parted_is_refused(tiny: Make, context: Make) -> None:
    ctx = context()
    with pytest.raises(StageError, match="a batch of 32 cannot be split into 5 equal parts"):
        train(tiny(), Supervised(ctx), TrainingSettings(**QUICK, accumulate=5), ctx)
