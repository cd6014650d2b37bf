"""Each call of a layer on calibration data is seen once, in evaluation mode, and the model stays as it is."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.base.batches import Batch
from pipeline.task import Split, classification
from stages.layerwise.calibration import watch
from tests.contexts import context_of, quadrants


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(64, 64), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(input=self.layer(self.drop(x.flatten(1))))


def test_calls_are_seen_with_their_arguments(tmp_path: Path) -> None:
    data = Split(quadrants(70, 0))  # type: ignore[arg-type]
    seen: list[tuple[Tensor, Tensor]] = []

    def look(part: nn.Module, args: Any, named: Any, output: Tensor) -> None:
        seen.append((args[0] if args else named["input"], output))

    module = Twice().train()
    ctx = context_of(classification(data, data, data, calibration=data), tmp_path)
    watch(module, {"layer": look}, "layers", ctx)
    batches: list[Batch] = list(data.loader(70))
    first = batches[0].inputs["input"].flatten(1)
    assert torch.allclose(torch.cat([inputs for inputs, _ in seen[::2]]), first)
    assert torch.allclose(torch.cat([output for _, output in seen[1::2]]), module.layer(module.layer(first)), atol=1e-5)
    assert module.training
    assert not module.layer._forward_hooks
    seen.clear()
    watch(module, {"layer": look}, "layers", ctx, examples=5)
    assert [len(inputs) for inputs, _ in seen] == [5, 5]
