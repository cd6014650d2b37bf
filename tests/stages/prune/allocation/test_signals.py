"""Gradients and values on calibration data, beside autograd and forwards by hand."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from stages.prune.allocation.signals import BATCH, gradients, magnitudes_read, squared_gradients
from tests.stages.prune.prune_nets import built, context


def test_the_gradients_are_those_of_the_whole_calibration_split(tmp_path):
    model, ctx = built("prune_nets.py:PlainNet"), context(tmp_path, {})
    batches = list(ctx.calibration.loader(BATCH))
    loss = sum(cross_entropy(model.module(b.inputs["input"]), b.targets) for b in batches)
    expected = torch.autograd.grad(loss, model.module.one.weight)[0]
    assert len(batches) == 2
    assert torch.allclose(gradients(model, ctx).one.weight.grad, expected, atol=1e-6)
    assert model.module.one.weight.grad is None


def test_squares_are_of_each_example(tmp_path):
    model, ctx = built("prune_nets.py:PlainNet"), context(tmp_path, {})
    weight, total = model.module.one.weight, 0
    for batch in ctx.calibration.loader(1):
        total += torch.autograd.grad(cross_entropy(model.module(batch.inputs["input"]), batch.targets), weight)[0] ** 2
    assert torch.allclose(squared_gradients(model, ctx).one.weight.grad, total / 64, rtol=1e-4, atol=1e-9)


def test_what_layers_read_is_averaged_over_all_but_channels(tmp_path):
    model, ctx = built("prune_nets.py:PlainNet"), context(tmp_path, {})
    images = torch.cat([batch.inputs["input"] for batch in ctx.calibration.loader(BATCH)])
    read = magnitudes_read(model, ctx)
    assert read["one"].tolist() == pytest.approx([float(images.abs().mean())])
    hidden = model.module.one(images).relu().detach()
    assert torch.allclose(read["two"], hidden.mean((0, 2, 3)), rtol=1e-4)
    assert read["head"].shape == (128,)
