"""Weights that are computed at each call are plain ones where channels leave, and the model gives what it gave."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.weight_norm import WeightNorm

from pipeline.errors import Note
from pipeline.run.roundtrip import save_exactly
from stages.prune.channels import ChannelPruning
from stages.prune.computed import USE, computed, plain
from tests.stages.prune.prune_nets import HERE, built, context


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "parametrizations.weight_norm",
                                  "parametrizations.spectral_norm"])  # fmt: skip
def test_normalized_weights_are_plain_ones_after_pruning(tmp_path, kind):
    model = built("prune_nets.py:Normalized", kind=kind)
    assert computed(model.module) == ["one", "two"]
    inputs, before = {"input": torch.rand(3, 1, 8, 8)}, copy.deepcopy(model.module.state_dict())
    plain = model.edited(USE)
    assert not computed(plain.module)
    assert torch.allclose(plain.predict(inputs)["output"], model.predict(inputs)["output"], atol=1e-6)
    notes, reports = [], {}
    small = ChannelPruning(macs=0.5).run(model, context(tmp_path, reports, warn=notes.append))
    assert reports["pruning"]["achieved"] <= 0.5
    assert small.module.two.in_channels == small.module.one.out_channels < 16
    assert isinstance(notes[0], Note)
    assert "2 layers (`one`, `two`), which are plain ones then" in notes[0]
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    save_exactly(small, tmp_path / "saved", HERE)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "parametrizations.weight_norm"])
def test_a_frozen_weight_stays_frozen(kind):
    model = built("prune_nets.py:Normalized", kind=kind)
    model.module.one.requires_grad_(False)
    trainable = {name: value.requires_grad for name, value in model.edited(USE).module.named_parameters()}
    assert (trainable["one.weight"], trainable["two.weight"]) == (False, True)


def test_a_buffer_stays_one_and_hooks_of_derived_classes_go():
    layer = nn.Linear(4, 3)
    layer.register_buffer("scale", torch.ones(4))
    parametrize.register_parametrization(layer, "scale", nn.Softplus())
    expected = layer.scale.clone()
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(layer)
    (hook,) = layer._forward_pre_hooks.values()
    hook.__class__ = type("Own", (WeightNorm,), {})
    plain(layer)
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias"}
    assert torch.equal(dict(layer.named_buffers())["scale"], expected)
