"""What calibration data tells of layers, against sums by hand."""

import pytest
import torch
from torch import nn

from pipeline.base.use import Reference
from pipeline.errors import StageError
from pipeline.model import TorchModel
from stages.prune.lowrank import LowRankFactorization
from stages.prune.ranks.moments import errors, roots
from tests.stages.prune.prune_nets import built, context


def read(model, ctx, name):
    """All that a layer reads of the calibration data, and gives."""
    seen = []
    handle = model.module.get_submodule(name).register_forward_hook(
        lambda part, args, output: seen.append((args[0], output))
    )
    with torch.no_grad():
        for batch in ctx.calibration.loader(64):
            model.module(batch.inputs["input"])
    handle.remove()
    return [torch.cat(values).detach() for values in zip(*seen, strict=True)]


def test_a_root_is_of_the_second_moment_of_what_a_layer_reads(tmp_path):
    model, ctx = built("prune_nets.py:PlainNet"), context(tmp_path, {})
    found = roots(model, ["two", "head"], ctx)
    channels = read(model, ctx, "two")[0].movedim(1, -1).flatten(0, -2).double()
    features = read(model, ctx, "head")[0].double()
    for name, rows in (("two", channels), ("head", features)):
        expected = rows.mT @ rows
        assert torch.allclose(found[name] @ found[name].mT, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


def test_of_a_strided_1x1_convolution_it_is_of_the_places_that_it_reads(tmp_path):
    module = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 8, 1, stride=(2, 3), padding=1))
    model = TorchModel(module, {"input": torch.rand(2, 1, 8, 8)}, Reference(use="none"))
    ctx = context(tmp_path, {})
    root = roots(model, ["1"], ctx)["1"]
    inputs, outputs = read(model, ctx, "1")
    moment = (root @ root.mT).float()
    weight = module[1].weight.detach().flatten(1)
    energy = (outputs - module[1].bias[:, None, None]).square().sum()
    assert torch.allclose(torch.einsum("oi,ij,oj->", weight, moment, weight), energy, rtol=1e-4)
    assert inputs.shape[1] == len(moment)


def test_errors_are_of_what_the_layer_gives(tmp_path):
    model, ctx = built("ranks/rank_nets.py:Wide"), context(tmp_path, {})
    small = LowRankFactorization(rank={"*": 4}, ignore=("head",)).run(model, context(tmp_path, {}))
    inputs, outputs = read(model, ctx, "two")
    expected = float((small.module.two(inputs) - outputs).norm() / outputs.norm())
    assert errors(model, small, ["two"], ctx)["two"] == pytest.approx(expected, rel=1e-5)


def test_a_layer_that_calibration_data_do_not_reach_is_told(tmp_path):
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.rare = nn.Linear(64, 4), nn.Linear(64, 4)

        def forward(self, x):
            return self.rare(x.flatten(1)) if x.sum() < 0 else self.one(x.flatten(1))

    model = TorchModel(Sometimes(), {"input": -torch.rand(2, 1, 8, 8)}, Reference(use="none"))
    with pytest.raises(StageError, match="`rare` runs on none of the calibration examples"):
        roots(model, ["one", "rare"], context(tmp_path, {}))


def test_values_that_are_not_finite_are_told(tmp_path):
    model = built("prune_nets.py:PlainNet")
    with torch.no_grad():
        model.module.one.bias[0] = torch.inf
    with pytest.raises(StageError, match="what `two` reads is not finite"):
        roots(model, ["two"], context(tmp_path, {}))
