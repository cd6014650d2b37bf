"""Weights that are computed at each call are plain ones where channels leave, and the model gives what it gave."""

import copy

import pytest
import torch

from pipeline.errors import Note
from pipeline.run.roundtrip import save_exactly
from stages.prune.channels import ChannelPruning
from stages.prune.computed import USE, computed
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
