"""The stage on every kind of transformer: what is dead leaves and the outputs stay, what is refused, what is saved."""

import pytest
import torch
from pydantic import ValidationError

from pipeline.deploy import deploy
from pipeline.errors import ConfigError, StageError
from pipeline.measure.cost import torch_macs, torch_params
from pipeline.run.roundtrip import save_exactly
from pipeline.stage import stage_class
from stages.prune import transformers
from stages.prune.attention.config import plain
from stages.prune.coupling import engine
from stages.prune.coupling.parts import Place
from stages.prune.depth.bypass import Bypass
from stages.prune.training.preparing import Preparation
from stages.prune.training.recovery import Recovery
from stages.prune.transformers import TransformerPruning
from stages.quantize.dynamic import DynamicQuantization
from tests.stages.prune.prune_nets import HERE, built, context

KINDS = ["bert", "distilbert", "gpt2", "t5", "vit", "deit", "swin", "Encoder", "Hand"]
IMAGES = {"input": torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))}


def net(kind, **arguments):
    return built(f"transformer_nets.py:{kind}", **arguments)


def pruned(model, tmp_path, **settings):
    reports = {}
    return TransformerPruning(**settings).run(model, context(tmp_path, reports)), reports


def attentions(model):
    groups = engine.couplings(model.module, model.example, with_heads=True).groups
    return [group for group in groups if group.width == "heads"]


def silence_heads(model, group, numbers):
    """Let the output projections read nothing of these heads."""
    gone = group.without(numbers)
    with torch.no_grad():
        for place, channels in gone.items():
            if place.side == "in":
                model.module.get_submodule(place.name).weight[:, channels] = 0


@pytest.mark.parametrize("kind", KINDS)
def test_dead_heads_leave_and_the_outputs_stay(kind, tmp_path):
    model = plain(net(kind))
    for number, group in enumerate(attentions(model)):
        silence_heads(model, group, range(number, number + len(group.scores) // 2))
    before = model.predict(IMAGES)["output"]
    small, reports = pruned(model, tmp_path, heads=4 if kind == "Hand" else 2)
    assert torch.allclose(small.predict(IMAGES)["output"], before, atol=1e-5)
    save_exactly(small, tmp_path / "saved", HERE)
    heads = reports["transformer"]["heads"]
    assert heads
    assert all(own["after"] == own["before"] // 2 for own in heads.values())
    macs, params = reports["transformer"]["macs"], reports["transformer"]["params"]
    assert macs["after"] == torch_macs(small.module, small.example) < macs["before"]
    assert params["after"] == torch_params(small.module) < params["before"]


EXPORTED = ("Encoder", "Hand")


@pytest.mark.parametrize("kind", [
    kind if kind in EXPORTED else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS
])  # fmt: skip
def test_the_target_holds_and_the_file_agrees(kind, tmp_path):
    model = net(kind)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    small, _ = pruned(model, tmp_path, macs=0.7, round_to=1, importance="magnitude")
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert torch_macs(small.module, small.example) <= 0.7 * torch_macs(model.module, model.example)
    file = deploy(small, tmp_path / "model.onnx")
    assert torch.allclose(file.predict(IMAGES)["output"], small.predict(IMAGES)["output"], atol=1e-4)


def test_grouped_queries_leave_with_their_keys(tmp_path):
    model = net("Hand", keys=2)
    small, reports = pruned(model, tmp_path, heads=1)
    assert reports["transformer"]["heads"] == {"qkv": {"before": 2, "after": 1}}
    assert (small.module.n_heads, small.module.n_keys, small.module.inner, small.module.narrow) == (4, 1, 16, 4)
    assert small.module.qkv.out_features == 16 + 2 * 4
    rows = next(group for group in attentions(model)).places[Place("qkv", "out")].tolist()
    assert rows == [0] * 16 + [1] * 16 + [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4


def test_blocks_leave_first_and_the_target_counts_them(tmp_path):
    model = net("vit")
    small, reports = pruned(model, tmp_path, macs=0.4, layers=1, round_to=1, importance="magnitude")
    assert len(reports["depth"]["gone"]) == 1
    assert torch_macs(small.module, small.example) <= 0.4 * torch_macs(model.module, model.example)
    save_exactly(small, tmp_path / "saved", HERE)


@pytest.mark.parametrize(("kind", "arguments", "rest"), [("Encoder", {"layers": 3}, 2), ("gpt2", {}, 1)])
def test_where_blocks_alone_reach_the_target_no_width_shrinks(kind, arguments, rest, tmp_path):
    _, reports = pruned(net(kind, **arguments), tmp_path, macs=0.9, layers=1, importance="magnitude")
    assert [*reports["transformer"]["heads"].values()] == [{"before": 4, "after": 4}] * rest
    assert reports["transformer"]["macs"]["after"] <= 0.9 * reports["transformer"]["macs"]["before"]


@pytest.mark.parametrize("target", [{"heads": 2}, {"macs": 0.4, "round_to": 1}])
def test_the_model_that_came_in_teaches_both_trainings(target, tmp_path, monkeypatch):
    blocks, training = [], {"epochs": 1, "batch_size": 512}

    def note(self, teachers, model, *others):
        blocks.append([sum(isinstance(part, Bypass) for part in one.module.modules()) for one in teachers])
        return model

    monkeypatch.setattr(Preparation, "prepared", note)
    monkeypatch.setattr(Recovery, "retrained", note)
    own = {"prepare": training, "recovery": training, "importance": "magnitude", "layers": 1}
    small, _ = pruned(net("vit"), tmp_path, **target, **own)
    assert any(isinstance(part, Bypass) for part in small.module.modules())
    assert blocks == [[0], [0]]


def test_attentions_with_few_enough_heads_are_not_prepared(tmp_path, monkeypatch):
    model, prepared = net("swin", heads=[2, 4]), []

    def note(self, teachers, model, groups, ctx):
        prepared.extend(group.root for group in groups)
        return model

    monkeypatch.setattr(Preparation, "prepared", note)
    roots = {group.root: len(group.scores) for group in attentions(plain(model))}
    _, reports = pruned(model, tmp_path, heads=2, prepare={"epochs": 1})
    assert sorted(roots.values()) == [2, 2, 4]
    assert prepared == [root for root, count in roots.items() if count == 4]
    assert [row["after"] for row in reports["transformer"]["heads"].values()] == [2, 2, 2]


@pytest.mark.parametrize("part", ["", ".lin*", ".self_attn.q_proj"])
def test_a_block_with_what_is_ignored_stays(part, tmp_path):
    def gone(layers, *ignore):
        settings = {"params": 0.9, "layers": layers, "ignore": ignore, "importance": "magnitude"}
        small, _ = pruned(net("Encoder", layers=4), tmp_path, **settings)
        return [name for name, block in small.module.encoder.layers.named_children() if isinstance(block, Bypass)]

    (least,) = gone(2)
    (other,) = gone(1, f"encoder.layers.{least}{part}")
    assert other != least


def test_what_an_importance_does_not_see_stays_and_others_leave(tmp_path):
    model, notes = net("Hand", norm=True), []
    stage = TransformerPruning(params=0.9, importance="batch_norm", round_to=1)
    told = [*stage.reach(model)]
    assert any("all channels stay of 1 layer (`qkv`): no scale" in text for text in told)
    assert "channels leave 1 layer (`up`)" in told
    small = stage.run(model, context(tmp_path, {}, warn=notes.append))
    assert small.module.up.out_features < 48
    assert small.module.qkv.out_features == model.module.qkv.out_features


def test_widths_say_what_may_shrink(tmp_path):
    model = net("vit")
    before = engine.widths(model.module)
    for widths, layers in (
        (("hidden",), {"projection", "dense"}), (("feed_forward",), {"dense"}), (("heads",), {"query", "key", "value"})
    ):  # fmt: skip
        small, _ = pruned(model, tmp_path, params=0.9, round_to=1, importance="magnitude", widths=widths)
        after = engine.widths(small.module)
        changed = {name for name in before if before[name] != after[name]}
        assert {name.rpartition(".")[2] for name in changed} == layers
        assert (small.module.model.vit.layernorm.normalized_shape != (32,)) == (widths == ("hidden",))


def test_a_smaller_file_of_it_is_quantized(tmp_path):
    small, _ = pruned(net("Hand"), tmp_path, heads=4)
    quantized = DynamicQuantization().run(deploy(small, tmp_path / "model.onnx"), context(tmp_path, {}))
    one, other = (model.predict(IMAGES)["output"] for model in (quantized, small))
    assert torch.allclose(one, other, atol=0.1 * float(other.abs().max()))


def test_the_plan_tells_the_heads(tmp_path):
    told = " ".join(TransformerPruning(heads=2).reach(net("Encoder")))
    assert "plain linear layers stand for those with weights of their own of 2 layers" in told
    assert "at most 2 heads of each attention stay: of 4 in 2 attentions (`encoder.layers.0.self_attn.q_proj`" in told
    told = " ".join(TransformerPruning(macs=0.7, round_to=4).reach(net("Hand")))
    assert "heads can leave: 8 in 1 attention (`qkv`)" in told


@pytest.mark.parametrize(("model", "settings", "message"), [
    (lambda: built("prune_nets.py:PlainNet"), {"macs": 0.5}, "no head of attention can leave"),
    (lambda: net("Hand", fixed=True), {"macs": 0.5}, "no head of attention can leave; these stay whole: `qkv`"),
    (lambda: net("Hand", keys=2), {"heads": 2}, r"`heads` is 2, and there are 2 in 1 attention \(`qkv`\)"),
    (lambda: net("vit"), {"heads": 5}, "`heads` is 5, and there are 4"),
    (lambda: net("vit"), {"heads": 2, "importance": "batch_norm"}, "no channels that can leave are normalized"),
    (lambda: net("vit"), {"heads": 2, "layers": 2}, "of them to stay: 2; expected fewer than 2"),
    (lambda: net("vit"), {"macs": 0.01, "round_to": 1}, "target macs: 0.01"),
    (lambda: net("vit"), {"macs": 0.5, "ignore": ("encoder.none",)}, "`ignore` names `encoder.none`"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_work(model, settings, message):
    with pytest.raises((ConfigError, StageError), match=message):
        for _ in TransformerPruning(**settings).reach(model()):
            pass


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "exactly one target of `macs`, `params`, `size`, `latency`, `heads`"),
    ({"macs": 0.5, "heads": 2}, "exactly one target"),
    ({"heads": 0}, "greater than or equal to 1"),
    ({"heads": 2, "steps": 2}, "with `heads` no other width changes, in one step: leave out `steps`"),
    ({"heads": 2, "round_to": 4}, "leave out `round_to`"),
    ({"heads": 2, "scope": "global"}, "leave out `scope`"),
    ({"heads": 2, "widths": ("feed_forward",)}, "leave out `widths`"),
    ({"latency": 0.5, "layers": 2}, "with `layers` the target is"),
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TransformerPruning(**settings)


def test_the_module_defines_the_stage():
    assert stage_class(transformers) is TransformerPruning


@pytest.mark.parametrize(("settings", "is_of_this_machine"), [
    ({"latency": 0.5}, True), ({"heads": 1, "layers": 1}, True), ({"macs": 0.5, "scope": "sensitivity"}, True),
    ({"macs": 0.5}, False), ({"heads": 1}, False),
])  # fmt: skip
def test_what_depends_on_the_machine_is_kept_for_it(settings, is_of_this_machine):
    assert TransformerPruning(**settings).chooses_by_answers() == is_of_this_machine
