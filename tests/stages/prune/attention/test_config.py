"""The configuration says what is left where all blocks agree, also of a model that is loaded, and nothing wrong."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from pipeline import model as models
from pipeline.model import TorchModel
from pipeline.run.roundtrip import save_exactly
from stages.prune.attention.config import with_config
from stages.prune.channels import ChannelPruning
from stages.prune.transformers import TransformerPruning
from tests.stages.prune.prune_nets import HERE, built, context

IMAGES = {"input": torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))}


def net(kind: str) -> TorchModel:
    return built(f"transformer_nets.py:{kind}")


def pruned(model, tmp_path, notes=None, **settings):
    ctx = replace(context(tmp_path, {}), warn=(notes if notes is not None else []).append)
    return TransformerPruning(importance="magnitude", **settings).run(model, ctx)


def narrower(model: TorchModel, *widths: int) -> TorchModel:
    """A ViT with these widths inside its feed-forward parts."""
    module = copy.deepcopy(model.module)
    for layer, width in zip(module.model.vit.encoder.layer, widths, strict=True):
        layer.intermediate.dense, layer.output.dense = nn.Linear(32, width), nn.Linear(width, 32)
    return replace(model, module=module)


@pytest.mark.parametrize(("kind", "heads", "numbers"), [
    ("vit", 2, {"num_attention_heads": 2, "head_dim": 8, "hidden_size": 32, "intermediate_size": 48}),
    ("distilbert", 1, {"n_heads": 1, "num_attention_heads": 1, "head_dim": 8, "dim": 32, "hidden_dim": 48}),
    ("gpt2", 2, {"n_head": 2, "head_dim": 8, "n_embd": 32, "n_inner": 48}),
])  # fmt: skip
def test_heads_are_counted_by_the_names_of_the_kind(kind, heads, numbers, tmp_path):
    model, notes = net(kind), []
    small = pruned(model, tmp_path, notes, heads=heads)
    save_exactly(small, tmp_path / "saved", HERE)
    for one in (small, models.load(tmp_path / "saved", HERE)):
        config = one.module.model.config
        assert {name: getattr(config, name) for name in numbers} == numbers
    assert model.module.model.config.num_attention_heads == 4
    assert any(f"the configuration says num_attention_heads: {heads}, head_dim: 8 now" in note for note in notes)


@pytest.mark.parametrize(("kind", "heads", "numbers"), [
    ("llama", 1, {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}),
    ("t5", 2, {"num_heads": 2, "d_kv": 8, "d_model": 32}),
])  # fmt: skip
def test_a_new_model_of_a_configuration_with_a_size_of_heads_takes_the_weights(kind, heads, numbers, tmp_path):
    small = pruned(net(kind), tmp_path, heads=heads)
    part = small.module.model
    assert {name: getattr(part.config, name) for name in numbers} == numbers
    counts = {inner.config.num_attention_heads for inner in part.modules() if hasattr(inner, "config")}
    assert counts == {2}
    fresh = replace(small, module=copy.deepcopy(small.module))
    fresh.module.model = type(part)(part.config).eval()
    fresh.module.model.load_state_dict(part.state_dict())
    assert torch.allclose(fresh.predict(IMAGES)["output"], small.predict(IMAGES)["output"], atol=1e-6)


def test_widths_are_told_where_all_blocks_agree_and_kept_where_they_differ():
    model, notes = net("vit"), []
    same = with_config(model, narrower(model, 24, 24), [], notes.append)
    assert same.module.model.config.intermediate_size == 24
    assert notes == ["the configuration says intermediate_size: 24 now"]
    assert with_config(model, model, [], notes.append) is model

    notes.clear()
    mixed = narrower(model, 24, 16)
    assert with_config(model, mixed, [], notes.append) is mixed
    assert mixed.module.model.config.intermediate_size == 48
    assert notes == ["the configuration keeps intermediate_size: 48, for its blocks have different numbers now"]


def test_the_hidden_width_is_told(tmp_path):
    small = pruned(net("vit"), tmp_path, params=0.6, round_to=1, widths=("hidden",))
    width = small.module.model.vit.layernorm.normalized_shape[0]
    assert small.module.model.config.hidden_size == width < 32


@pytest.mark.parametrize(("kind", "width", "name"), [
    ("vit", "heads", "num_attention_heads"), ("vit", "hidden", "hidden_size"), ("distilbert", "hidden", "hidden_size"),
    ("vit", "feed_forward", "intermediate_size"), ("distilbert", "feed_forward", "hidden_dim"),
])  # fmt: skip
def test_channels_that_leave_are_told_too(kind, width, name, tmp_path):
    model, notes = net(kind), []
    stage = ChannelPruning(params=0.8 if width != "heads" else 0.9, round_to=1, widths=(width,))
    config = stage.run(model, context(tmp_path, {}, warn=notes.append)).module.model.config
    assert getattr(config, name) < getattr(model.module.model.config, name)
    assert any(f"{name}: {getattr(config, name)}" in note for note in notes)


def test_a_configuration_with_several_numbers_of_heads_ends_in_no_error(tmp_path):
    small = ChannelPruning(channels=0.55).run(net("swin"), context(tmp_path, {}))
    assert small.module.model.config.num_heads == [4, 4]


def test_a_module_without_a_configuration_stays_as_it_is():
    model, notes = net("Encoder"), []
    assert with_config(model, model, [], notes.append) is model
    assert not notes
