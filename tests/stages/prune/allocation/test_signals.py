"""Gradients and values on calibration data, beside autograd and forwards by hand."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from stages.prune.allocation.signals import BATCH, gradients, magnitudes_read, squared_gradients
from tests.stages.prune.prune_nets import PlainNet, built, context, images


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


def test_squares_of_gradients_in_half_precision_are_not_lost(tmp_path):
    class Half(PlainNet):
        def forward(self, x):
            return super().forward(x.half()).float()

    model, ctx = built("prune_nets.py:PlainNet"), context(tmp_path, {})
    model.module.head.weight.data /= 100  # so that the gradient of a weight before it is about 1e-4
    half = Half().eval()
    half.load_state_dict(model.module.state_dict())
    expected = squared_gradients(model, ctx).one.weight.grad
    assert 0 < expected.mean() < torch.finfo(torch.float16).smallest_normal
    in_half = squared_gradients(replace(model, module=half.half()), ctx).one.weight.grad
    torch.testing.assert_close(in_half, expected, rtol=0.1, atol=float(expected.mean()) / 10)


@pytest.mark.parametrize("signal", [gradients, squared_gradients])
def test_recurrent_layers_give_those_of_evaluation_in_training_mode_as_cudnn_asks(tmp_path, signal):
    """On a GPU `cudnn RNN backward can only be called in training mode`, in which dropout would draw."""
    model, ctx = built("prune_nets.py:Stacked"), context(tmp_path, {}, calibration=images(4, 1))
    model.module.rnn.dropout = 0.5
    weight, expected = model.module.rnn.weight_ih_l1, 0
    for batch in ctx.calibration.loader(4 if signal is gradients else 1):
        loss = cross_entropy(model.module(batch.inputs["input"]), batch.targets)
        gradient = torch.autograd.grad(loss, weight)[0]
        expected += gradient if signal is gradients else gradient**2 / 4
    copied = signal(model, ctx)
    assert torch.allclose(copied.rnn.weight_ih_l1.grad, expected, rtol=1e-4, atol=1e-9)
    assert copied.rnn.training
    assert not copied.before.training
    assert (model.module.rnn.training, model.module.rnn.dropout) == (False, 0.5)


def test_what_layers_read_is_averaged_over_all_but_channels(tmp_path):
    model, ctx = built("prune_nets.py:PlainNet"), context(tmp_path, {})
    images = torch.cat([batch.inputs["input"] for batch in ctx.calibration.loader(BATCH)])
    read = magnitudes_read(model, ctx)
    assert read["one"].tolist() == pytest.approx([float(images.abs().mean())])
    hidden = model.module.one(images).relu().detach()
    assert torch.allclose(read["two"], hidden.mean((0, 2, 3)), rtol=1e-4)
    assert read["head"].shape == (128,)
