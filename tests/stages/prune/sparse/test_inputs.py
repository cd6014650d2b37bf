"""What weights meet, by values: weight times rows is what the layer gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import StageError
from pipeline.task import Split
from stages.prune.sparse.inputs import input_sums, output_errors, rows_of
from stages.prune.sparse.layers import weights_of
from tests.stages.prune.prune_nets import built, context
from tests.stages.prune.sparse.sparse_nets import HERE

LAYERS: list[tuple[nn.Module, tuple[int, ...], dict[str, Any]]] = [
    (nn.Linear(6, 5), (3, 4, 6), {}),
    (nn.Conv1d(6, 8, 3, stride=2, padding=1, groups=2), (3, 6, 11), {}),
    (nn.Conv2d(4, 6, (3, 2), padding="same", dilation=(2, 1)), (2, 4, 7, 6), {}),
    (nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect", bias=False), (2, 4, 7, 6), {}),
    (nn.Conv2d(6, 6, 3, groups=6), (2, 6, 5, 5), {}),
    (nn.Conv2d(6, 4, 3), (6, 5, 5), {}),
    (nn.Conv3d(2, 3, 2, padding=1), (2, 2, 3, 4, 3), {}),
    (nn.ConvTranspose1d(6, 8, 3, stride=2, output_padding=1, groups=2), (3, 6, 5), {}),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, dilation=2), (2, 4, 5, 6), {}),
    (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 6), {"output_size": (12, 13)}),
    (nn.ConvTranspose3d(2, 3, 2), (2, 2, 3, 3, 2), {}),
]


@pytest.mark.parametrize(("layer", "shape", "named"), LAYERS, ids=lambda value: str(value)[:40])
def test_weight_times_rows_is_the_output(layer: nn.Module, shape: tuple[int, ...], named: dict[str, Any]) -> None:
    torch.manual_seed(0)
    values = torch.randn(shape)
    (weight,) = weights_of(layer)
    blocks = torch.from_numpy(weight.blocks(layer)).float()
    with torch.no_grad():
        output = layer(values, **named)
        rows = torch.cat([*rows_of(layer, (values,), named)], 1)
    products = torch.einsum("grw,gpw->prg", blocks, rows)
    bias = 0 if layer.bias is None else layer.bias.detach()
    if isinstance(layer, nn.Linear):
        expected = output.flatten(0, -2) - bias
    else:
        spatial = len(layer.kernel_size)
        channels_last = output.movedim(-1 - spatial, -1) - bias
        expected = channels_last.flatten(0, -2)
    # Output channels lie group by group.
    torch.testing.assert_close(products.mT.flatten(1), expected, atol=1e-5, rtol=1e-4)


def test_sums_are_over_all_calls_of_all_layers_that_share_a_weight(tmp_path: Path) -> None:
    model = built("sparse_nets.py:Twice", folder=HERE)
    shared = next(weight for weight in weights_of(model.module) if weight.name == "one.weight")
    assert shared.layers == ("one", "two")
    ctx = context(tmp_path, {})
    images = torch.cat([batch.inputs["input"] for batch in ctx.calibration.loader(64)])[:40]
    module: Any = model.module
    with torch.no_grad():
        first = torch.relu(module.embed(images.squeeze(1)))
        second = 3 * torch.relu(module.one(first)) - 1
    rows = torch.cat([first.flatten(0, 1), second.flatten(0, 1)])
    sums = input_sums(model.module, [shared], "products", ctx, 40)["one.weight"]
    np.testing.assert_allclose(sums, (rows.mT @ rows)[None], rtol=1e-4)
    squares = input_sums(model.module, [shared], "squares", ctx, 40)["one.weight"]
    np.testing.assert_allclose(squares, rows.square().sum(0)[None], rtol=1e-4)


def test_the_error_of_outputs_is_theirs_and_the_module_stays(tmp_path: Path) -> None:
    model, ctx = built("prune_nets.py:PlainNet"), context(tmp_path, {})
    module: Any = model.module
    changed = {"one.weight": 0.9 * module.one.weight.detach(), "two.weight": torch.zeros_like(module.two.weight)}
    weights = weights_of(model.module)
    errors = output_errors(model.module, weights, changed, ctx, 64)
    images = torch.cat([batch.inputs["input"] for batch in ctx.calibration.loader(64)])
    with torch.no_grad():
        one, bias = module.one(images), module.one.bias[:, None, None]
        two = module.two(torch.relu(one))
    assert set(errors) == {"one.weight", "two.weight"}
    assert errors["one.weight"] == pytest.approx(share(0.1 * (one - bias), one), rel=1e-4)
    assert errors["two.weight"] == pytest.approx(share(two - module.two.bias[:, None, None], two), rel=1e-4)
    assert not any(part._forward_hooks for part in module.modules())


def share(change: Tensor, output: Tensor) -> float:
    return float(change.square().sum() / output.square().sum())


def test_inputs_that_are_not_finite_are_told(tmp_path: Path) -> None:
    model = built("prune_nets.py:PlainNet")
    data = Split([({"input": torch.full((1, 8, 8), float("nan"))}, 0)] * 4)  # type: ignore[arg-type]
    ctx = context(tmp_path, {}, calibration=data)
    with pytest.raises(StageError, match=r"what `one\.weight` reads is not finite"):
        input_sums(model.module, weights_of(model.module), "squares", ctx, 4)
