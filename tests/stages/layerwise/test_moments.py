"""Sums over calibration data against those of all rows at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.task import Split, classification
from stages.layerwise.moments import input_sums, output_changes
from tests.contexts import context_of, quadrants


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.rare = (nn.Linear(64, 64) for _ in range(3))
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(x.flatten(1))))


def rows_of(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Tensor]:
    yield from args[0].split(7)


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    data = Split(quadrants(70, 0))  # type: ignore[arg-type]
    return context_of(classification(data, data, data, calibration=data), tmp_path)


@pytest.fixture
def module() -> Shared:
    torch.manual_seed(0)
    return Shared()


def rows(module: Shared, ctx: Context, count: int) -> Tensor:
    first = torch.cat([batch.inputs["input"] for batch in ctx.calibration.loader(70)])[:count].flatten(1)
    return torch.cat([first, torch.relu(module.one(first)).detach()])


@pytest.mark.parametrize("count", [70, 40])
def test_layers_with_a_key_in_common_are_summed_together(module: Shared, ctx: Context, count: int) -> None:
    keys = {"one": "shared", "two": "shared", "rare": "rare"}
    expected = rows(module, ctx, count)
    sums = input_sums(module, keys, rows_of, "products", ctx, count, torch.float64)
    assert [*sums] == ["shared"]
    assert sums["shared"].dtype == torch.float64
    torch.testing.assert_close(sums["shared"].float(), expected.mT @ expected, rtol=1e-4, atol=1e-4)
    squares = input_sums(module, keys, rows_of, "squares", ctx, count)
    torch.testing.assert_close(squares["shared"], expected.square().sum(0), rtol=1e-4, atol=1e-4)


def test_a_change_is_a_share_of_what_the_layers_give(module: Shared, ctx: Context) -> None:
    factors = {"one": 0.5, "two": 2.0}
    keys = {"one": "a", "two": "b"}
    changes = output_changes(module, keys, lambda name, *rest: factors[name] * rest[-1], ctx)
    assert changes == pytest.approx({"a": 0.25, "b": 4.0})
    assert not module.one._forward_hooks


def test_what_is_not_finite_is_told(module: Shared, ctx: Context) -> None:
    module.one.bias.data[3] = torch.inf
    with pytest.raises(StageError, match="what `later` reads is not finite"):
        input_sums(module, {"one": "first", "two": "later"}, rows_of, "squares", ctx)
