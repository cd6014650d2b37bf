"""The stage: targets, what it reports, the saved model, recovery, and what it refuses."""

import logging
import re
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from pipeline.deploy import deploy
from pipeline.errors import ConfigError, Note, StageError
from pipeline.measure.cost import onnx_macs, torch_macs, torch_params
from pipeline.run.roundtrip import save_exactly
from pipeline.stage import stage_class
from stages.prune import channels
from stages.prune.channels import ChannelPruning
from stages.prune.coupling import engine
from stages.prune.coupling.engine import Couplings
from stages.trainer.loop import TrainingSettings, train
from stages.trainer.objective import Supervised
from tests.contexts import preview_of, refused
from tests.stages.prune.prune_nets import DIGITS, HERE, built, context, silence
from tests.trained import score


def content(model):
    return {name: value.numpy().tobytes() for name, value in model.module.state_dict().items()}


def pruned(model, tmp_path, **settings):
    reports = {}
    return ChannelPruning(**settings).run(model, context(tmp_path, reports)), reports["pruning"]


def plain_macs(widths):
    """The closed form for PlainNet on 8x8: two 3x3 convolutions that keep the size, a linear layer on 2x2."""
    a, b = widths["one"], widths["two"]
    return 64 * 9 * 1 * a + 64 * 9 * a * b + 4 * b * 4


def plain_params(widths):
    a, b = widths["one"], widths["two"]
    return 9 * a + a + 9 * a * b + b + 16 * b + 4


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("target", [0.8, 0.5, 0.2])
@pytest.mark.parametrize(("name", "closed"), [("macs", plain_macs), ("params", plain_params)])
def test_the_target_is_met_and_what_is_reported_is_the_closed_form(tmp_path, scope, target, name, closed):
    model = built("prune_nets.py:PlainNet", a=24, b=48)
    small, report = pruned(model, tmp_path, scope=scope, round_to=1, **{name: target})
    before, after = ({k: v[when] for k, v in report["channels"].items()} for when in ("before", "after"))
    assert before == {"one": 24, "two": 48, "head": 4}
    assert report[name] == {"before": closed(before), "after": closed(after)}
    assert torch_macs(small.module, small.example) == plain_macs(after)
    assert torch_params(small.module) == plain_params(after)
    assert 0.93 * target < report["achieved"] <= target
    assert report["achieved"] == pytest.approx(closed(after) / closed(before))
    assert (report["requested"], report["target"]) == (target, name)


def test_channels_is_the_share_that_is_kept(tmp_path):
    _, report = pruned(built("prune_nets.py:PlainNet", a=20, b=40), tmp_path, channels=0.3, round_to=1)
    assert report["achieved"] == pytest.approx(0.3)
    assert {k: v["after"] for k, v in report["channels"].items()} == {"one": 6, "two": 12, "head": 4}
    assert report["steps"][0]["ratio"] == pytest.approx(0.7, abs=0.06)


@pytest.mark.parametrize("target", [0.75, 0.5, 0.3])
def test_a_residual_network_with_round_widths(tmp_path, target):
    model = built("models.py:DigitNet", folder=DIGITS, width=32, blocks=3)
    small, report = pruned(model, tmp_path, macs=target)
    assert all(v["after"] % 8 == 0 for k, v in report["channels"].items() if k != "head")
    assert 0.8 * target < report["achieved"] <= target
    assert torch_macs(small.module, small.example) <= target * torch_macs(model.module, model.example)


@pytest.mark.parametrize(("net", "settings"), [
    ("PlainNet", {"macs": 0.5}),
    ("MobileNet", {"params": 0.6, "round_to": 4, "scope": "global"}),
    ("Encoder", {"params": 0.8}),
])  # fmt: skip
def test_the_input_is_untouched_and_the_export_agrees(tmp_path, net, settings):
    model = built(f"prune_nets.py:{net}")
    before, flags = content(model), [p.requires_grad for p in model.module.parameters()]
    small, report = pruned(model, tmp_path, **settings)
    assert content(model) == before
    assert [p.requires_grad for p in model.module.parameters()] == flags
    assert all(p.grad is None for p in (*model.module.parameters(), *small.module.parameters()))
    assert len(small.edits) == 1
    onnx = deploy(small, tmp_path / "model.onnx")
    inputs = {"input": torch.rand(5, 1, 8, 8)}
    assert torch.allclose(onnx.predict(inputs)["output"], small.predict(inputs)["output"], atol=1e-5)
    assert onnx_macs(onnx) == report["macs"]["after"]


def test_of_an_encoder_only_the_feed_forward_part_shrinks(tmp_path):
    _, report = pruned(built("prune_nets.py:Encoder"), tmp_path, params=0.8)
    changed = {name for name, width in report["channels"].items() if width["before"] != width["after"]}
    assert changed == {"encoder.layers.0.linear1", "encoder.layers.1.linear1"}


def test_a_new_process_gives_the_same_outputs_to_the_bit(tmp_path):
    model = built("models.py:DigitNet", folder=DIGITS, width=16, blocks=2)
    small, _ = pruned(model, tmp_path, macs=0.5, importance="taylor")
    small.save(tmp_path / "saved")
    inputs = {"input": torch.rand(16, 1, 8, 8)}
    save_file(inputs, tmp_path / "inputs.safetensors")
    code = (
        "import sys; from pathlib import Path; from safetensors.torch import load_file, save_file\n"
        "import torch; torch.set_num_threads(int(sys.argv[3])); from pipeline.model import load\n"
        "here = Path(sys.argv[1]); model = load(here / 'saved', Path(sys.argv[2]))\n"
        "save_file(model.predict(load_file(here / 'inputs.safetensors')), here / 'outputs.safetensors')"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(DIGITS), str(torch.get_num_threads())]
    subprocess.run(command, check=True, timeout=120)
    there, here = load_file(tmp_path / "outputs.safetensors"), small.predict(inputs)
    assert torch.equal(there["output"], here["output"])


def test_pruning_twice_stacks_two_edits(tmp_path):
    once, _ = pruned(built("prune_nets.py:PlainNet"), tmp_path, macs=0.6)
    twice, _ = pruned(once, tmp_path, macs=0.6, round_to=4)
    assert len(twice.edits) == 2
    save_exactly(twice, tmp_path / "saved", HERE)


def test_tied_weights_stay_tied_and_are_saved_once(tmp_path):
    model = built("prune_nets.py:Tied", {"tokens": torch.randint(20, (2, 5))})
    small, report = pruned(model, tmp_path, params=0.5, round_to=1)
    assert small.module.head.weight is small.module.embedding.weight
    assert small.module.embedding.embedding_dim == report["channels"]["down"]["after"] < 32
    save_exactly(small, tmp_path / "saved", HERE)


def test_named_inputs(tmp_path):
    example = {"image": torch.rand(2, 1, 8, 8), "token": torch.tensor([1, 2])}
    small, report = pruned(built("prune_nets.py:TwoInputs", example), tmp_path, params=0.6, round_to=4)
    assert report["achieved"] <= 0.6
    assert small.predict(example)["features"].shape == (2, 24)


def test_magnitude_removes_the_zeroed_channels(tmp_path):
    model = built("prune_nets.py:PlainNet")
    dead = [1, 4, 9, 14]
    silence(model.module.one, dead)
    small, _ = pruned(model, tmp_path, channels=0.75, round_to=4, ignore=["two"])
    alive = [i for i in range(16) if i not in dead]
    assert torch.equal(small.module.one.weight, model.module.one.weight[alive])
    assert torch.equal(small.module.two.weight, model.module.two.weight[:, alive])


def test_taylor_keeps_what_the_loss_needs(tmp_path):
    """A channel with large weights that the head does not read has no gradient: taylor removes it, magnitude not."""
    model = built("prune_nets.py:PlainNet")
    unread = [0, 3, 6, 7]
    with torch.no_grad():
        model.module.one.weight[unread] = 3.0
        model.module.two.weight[:, unread] = 0
    kept = {}
    for importance in ("taylor", "magnitude"):
        small, _ = pruned(model, tmp_path, channels=0.75, round_to=4, ignore=["two"], importance=importance)
        kept[importance] = [bool((filters == 3).all()) for filters in small.module.one.weight]
    assert not any(kept["taylor"])
    assert sum(kept["magnitude"]) == 4


def test_gradual_targets_are_geometric(tmp_path):
    model = built("models.py:DigitNet", folder=DIGITS, width=32, blocks=2)
    small, report = pruned(model, tmp_path, macs=0.3, steps=3, importance="taylor", round_to=1)
    assert [step["target"] for step in report["steps"]] == pytest.approx([0.3 ** (1 / 3), 0.3 ** (2 / 3), 0.3])
    assert all(0.9 * s["target"] < s["achieved"] <= s["target"] for s in report["steps"])
    assert report["achieved"] == report["steps"][-1]["achieved"]
    assert len(small.edits) == 1


def test_recovery_raises_the_accuracy_and_divides_the_epochs(tmp_path):
    reports = {}
    ctx = context(tmp_path, reports)
    start = TrainingSettings(epochs=3, learning_rate=5e-3, batch_size=32)
    model = train(built("models.py:DigitNet", folder=DIGITS, width=16, blocks=3), Supervised(ctx), start, ctx)
    bare = ChannelPruning(macs=0.1, round_to=1).run(model, ctx)
    recovery = {"epochs": 5, "learning_rate": 5e-3, "batch_size": 32}
    recovered = ChannelPruning(**{"macs": 0.1, "round_to": 1, "steps": 2, "recovery": recovery}).run(model, ctx)
    low, high = (score(m, ctx) for m in (bare, recovered))
    assert high > low + 0.2
    assert (len(reports["recovery_1"]), len(reports["recovery_2"])) == (2, 3)
    assert reports["pruning"]["achieved"] <= 0.1
    assert len(recovered.edits) == 1
    save_exactly(recovered, tmp_path / "saved", DIGITS)


@pytest.mark.parametrize("teacher", ["labels", "baseline"])
def test_recovery_learns_from_whom_it_is_told(tmp_path, teacher):
    model, reports = built("prune_nets.py:PlainNet"), {}
    stage = ChannelPruning(macs=0.5, recovery={"epochs": 1, "teacher": teacher})
    stage.run(model, context(tmp_path, reports, baseline=model))
    assert len(reports["recovery_1"]) == 1
    if teacher == "baseline":
        with pytest.raises(ConfigError, match="there is no baseline yet"):
            stage.run(model, context(tmp_path, {}))


def test_far_below_the_target_is_noted(tmp_path, caplog):
    model = built("prune_nets.py:PlainNet", a=16, b=16)
    with caplog.at_level(logging.WARNING, "prune"):
        _, report = pruned(model, tmp_path, macs=0.9, round_to=8)
    assert report["achieved"] < 0.81
    assert "widths are multiples of round_to = 8" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "prune"):
        pruned(model, tmp_path, macs=0.9, round_to=1)
    assert not caplog.text


def test_a_layer_narrower_than_round_to_stays(tmp_path):
    _, report = pruned(built("prune_nets.py:PlainNet", a=6, b=32), tmp_path, macs=0.6)
    assert (report["channels"]["one"]["after"], report["channels"]["two"]["after"]) == (6, 16)


def test_channels_last_are_pruned_as_channels_first(tmp_path):
    """The same function in the other order of its head's columns loses the same channels."""
    first, last = built("prune_nets.py:Flat"), built("prune_nets.py:Flat", last=True)
    columns = first.module.head.weight.detach().view(4, 16, 64).transpose(1, 2).flatten(1)
    last.module.load_state_dict({**first.module.state_dict(), "head.weight": columns})
    images = torch.rand(16, 1, 8, 8)
    one, other = (pruned(model, tmp_path, channels=0.5)[0].module(images) for model in (first, last))
    assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(one, first.module(images), atol=1e-2)


def test_recurrent_layers_read_less_and_tensors_beside_layers_are_cut_along(tmp_path):
    small, _ = pruned(built("prune_nets.py:Recurrent"), tmp_path, channels=0.5, ignore=("gru",))
    assert (small.module.gru.input_size, small.module.gru.weight_ih_l0_reverse.shape) == (8, (24, 8))
    assert small.module.gain.shape == small.module.offset.shape == (8, 1)
    save_exactly(small, tmp_path / "saved", HERE)


def test_a_head_in_training_alone_is_named_and_follows(tmp_path):
    model = built("prune_nets.py:Auxiliary")
    stage = ChannelPruning(channels=0.6, recovery={"epochs": 1})
    (warning,) = [text for text in stage.reach(model) if not isinstance(text, Note)]
    assert warning.endswith("where what is cut is proven: `aux`")
    small = stage.run(model, context(tmp_path, {}, warn=(texts := []).append))
    assert texts[0] == warning
    assert small.module.aux.in_features == small.module.conv.out_channels < 16


def test_out_of_reach_and_nothing_to_prune_are_errors(tmp_path):
    model = built("prune_nets.py:PlainNet", a=6, b=8)
    with pytest.raises(StageError, match=r"target macs: 0.5: the cost is still .* lower round_to"):
        pruned(model, tmp_path, macs=0.5)
    with pytest.raises(StageError, match="no layer can lose channels"):
        pruned(model, tmp_path, macs=0.5, ignore=["one", "two"])


def test_the_plan_tells_the_widths_and_what_can_be_reached(tmp_path):
    model = built("prune_nets.py:PlainNet")
    small, _ = pruned(model, tmp_path, macs=0.4)
    one, two = small.module.one.out_channels, small.module.two.out_channels
    told = f"16 to {one} in 1 layer (`one`); 32 to {two} in 1 layer (`two`)"
    assert [*ChannelPruning(macs=0.4).reach(model)][-1] == f"about these widths: {told}"
    assert "about these widths" not in " ".join(ChannelPruning(macs=0.4, scope="global").reach(model))
    with pytest.raises(StageError, match=r"Raise the target to 0\.\d+ or more") as refusal:
        [*ChannelPruning(macs=0.01).reach(model)]
    share = float(re.search(r"to (0\.\d+) or more", str(refusal.value))[1])
    assert [*ChannelPruning(macs=share).reach(model)]
    with pytest.raises(StageError, match="Raise the target"):
        [*ChannelPruning(macs=share - 0.002).reach(model)]


def test_a_normalization_in_ignore_keeps_its_channels(tmp_path):
    model = built("prune_nets.py:MobileNet")
    small, _ = pruned(model, tmp_path, channels=0.8, round_to=1, ignore=["norm"])
    assert small.module.norm.num_features == small.module.expand.out_channels == 48
    assert pruned(model, tmp_path, channels=0.8, round_to=1)[0].module.norm.num_features < 48


def test_what_a_part_in_ignore_reads_may_leave_though_it_begins_with_a_normalization(tmp_path):
    model = built("prune_nets.py:NormalizedHead")
    small, _ = pruned(model, tmp_path, channels=0.8, round_to=1, ignore=["head"])
    assert small.module.head[0].num_features == small.module.conv.out_channels < 16


def test_a_layer_that_stays_whole_is_named(tmp_path):
    model, notes = built("prune_nets.py:FixedView"), []
    stage = ChannelPruning(macs=0.7)
    fixed = stage.run(model, context(tmp_path, reports := {}, warn=notes.append))
    assert fixed.module.qkv.out_features == 32
    assert [type(note) for note in notes] == [Note]
    assert notes[0].startswith("all channels stay of 1 layer (`qkv`): what reads them")
    assert reports["whole"] == ["qkv"]
    assert [*stage.reach(model)] == [
        "channels leave 1 layer (`up`)", "all channels stay of 1 layer (`qkv`): " + channels.WHOLE,
        f"about these widths: {model.module.up.out_features} to {fixed.module.up.out_features} in 1 layer (`up`)"
    ]  # fmt: skip
    with pytest.raises(StageError, match="no layer can lose channels; those of `qkv` cannot be told apart"):
        pruned(model, tmp_path, macs=0.7, ignore=["up"])


def test_a_layer_whose_chosen_channels_cannot_go_stays_and_others_lose_more(tmp_path, monkeypatch):
    model, notes, refusing = built("prune_nets.py:PlainNet"), [], {"one"}
    monkeypatch.setattr(engine, "unproven", lambda _, __, channels, groups: [*refusing.intersection(channels)])
    small = ChannelPruning(macs=0.6).run(model, context(tmp_path, reports := {}, warn=notes.append))
    assert (small.module.one.out_channels, small.module.two.out_channels) == (16, 16)
    whole, rounded = (text for text in notes if isinstance(text, Note))
    assert whole == f"all channels stay of 1 layer (`one`): {channels.WHOLE}"
    assert "was asked for and 0.515 remains" in rounded
    assert reports["whole"] == ["one"]
    refusing.add("two")
    for scope in ("uniform", "global"):
        with pytest.raises(StageError, match=r"no channels can leave 2 layers \(`one`, `two`\): without the chosen"):
            ChannelPruning(macs=0.6, scope=scope).run(model, context(tmp_path, {}))


def test_a_layer_that_a_later_step_cannot_cut_is_named(tmp_path, monkeypatch):
    model, notes, reports, couplings = built("prune_nets.py:PlainNet"), [], {}, engine.couplings

    def narrowing(module, *rest):
        result = couplings(module, *rest)
        groups = [group for group in result.groups if group.root != "one"]
        return result if module.one.out_channels == 16 else Couplings(groups, ("one",))

    monkeypatch.setattr(engine, "couplings", narrowing)
    stage = ChannelPruning(channels=0.7, steps=2, round_to=1)
    small = stage.run(model, context(tmp_path, reports, warn=notes.append))
    assert small.module.one.out_channels == 13
    assert reports["whole"] == ["one"]
    assert notes == [f"those that earlier steps left stay of 1 layer (`one`): {channels.WHOLE}"]


def test_layers_that_round_to_leaves_no_smaller_width_are_told_before_work():
    stage = ChannelPruning(macs=0.8)
    reason = "`round_to: 8` leaves no smaller width"
    assert [*stage.reach(built("prune_nets.py:PlainNet", a=8, b=16))] == [
        "channels leave 1 layer (`two`)", f"all channels stay of 1 layer (`one`): {reason}",
        "about these widths: 16 to 8 in 1 layer (`two`)"
    ]  # fmt: skip
    refused(rf"{reason} to 2 layers \(`one`, `two`\)\. Lower `round_to`", stage.reach(
        built("prune_nets.py:PlainNet", a=8, b=8)))  # fmt: skip


def test_patterns_of_ignore_fit_names_and_one_that_fits_none_is_told_before_work(tmp_path):
    model = built("prune_nets.py:Encoder")
    stage = ChannelPruning(params=0.9, ignore=("encoder.*.1.linear?",))
    assert next(iter(stage.reach(model))) == "channels leave 1 layer (`encoder.layers.0.linear1`)"
    refused("names `hed`, which the model does not have; did you mean `head`", ChannelPruning(
        macs=0.5, ignore=("hed",)).reach(model))  # fmt: skip
    with pytest.raises(StageError, match=r"names `\*.linear3`, which the model does not have"):
        pruned(model, tmp_path, macs=0.5, ignore=("*.linear3",))
    assert "without `recovery`" in next(iter(ChannelPruning(macs=0.5, steps=3).check([], preview_of(model))))


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "exactly one target"),
    ({"macs": 0.5, "params": 0.5}, "exactly one target"),
    ({"macs": 1.0}, "less than 1"),
    ({"macs": 0.0}, "greater than 0"),
    ({"macs": 0.5, "importence": "taylor"}, "Extra inputs"),
    ({"macs": 0.5, "steps": 3, "recovery": {"epochs": 2}}, "2 epochs of recovery cannot be divided among 3"),
    ({"macs": 0.5, "recovery": {"teacherz": "labels"}}, "Extra inputs"),
])  # fmt: skip
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValidationError, match=message):
        ChannelPruning(**settings)


def test_the_module_defines_one_documented_stage():
    assert stage_class(channels) is ChannelPruning
    assert all(field.description for field in ChannelPruning.model_fields.values())
