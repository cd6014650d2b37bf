"""Depth: which blocks leave, what is left, and what is refused."""

import copy

import onnxruntime
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5EncoderModel

from pipeline.errors import ConfigError, StageError
from pipeline.measure.cost import torch_macs
from pipeline.model import call
from pipeline.run.roundtrip import save_exactly
from stages.prune.allocation.effects import Answers
from stages.prune.channels import ChannelPruning
from stages.prune.depth.blocks import find, without
from stages.prune.layers import LayerPruning
from tests.conftest import deploy
from tests.contexts import preview_of, refused
from tests.stages.prune.prune_nets import DIGITS, built, context

TESTS = DIGITS.parents[1] / "tests"
IDS = torch.arange(12).view(2, 6)
TEXTS = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


@pytest.fixture
def net():
    """Four residual blocks of which the second gives what it reads, and the fourth nearly."""
    model = built("models.py:DigitNet", folder=DIGITS, width=8, blocks=4)
    with torch.no_grad():
        for place, factor in ((1, 0.0), (3, 0.01)):
            block = model.module.blocks[place]
            for weight in block.parameters():
                weight.mul_(factor)
    return model


def layers(model, folder, **settings):
    reports = {}
    return LayerPruning(**settings).run(model, context(folder, reports)), reports


def test_blocks_that_change_least_leave_first(net, tmp_path):
    small, reports = layers(net, tmp_path, blocks=2)
    report = reports["depth"]
    assert report["gone"] == ["blocks.1", "blocks.3"]
    assert report["left"] == ["blocks.0", "blocks.2"]
    assert report["steps"][0]["effects"]["blocks.1"] == pytest.approx(0, abs=1e-6)
    x = net.example["input"]
    with torch.no_grad():
        shorter = net.module.blocks[2](net.module.blocks[0](torch.relu(net.module.norm(net.module.stem(x)))))
        head = net.module.head(torch.nn.functional.adaptive_avg_pool2d(shorter, 2).flatten(1))
        assert torch.allclose(small.module(x), head, atol=1e-6)
    assert len(net.module.blocks) == len(find(net.module, net.example).blocks) == 4
    save_exactly(small, tmp_path / "saved", DIGITS)


def test_each_change_is_measured_again_without_those_that_left(net, tmp_path):
    ctx = context(tmp_path, reports := {})
    LayerPruning(blocks=1).run(net, ctx)
    first, second, third = reports["depth"]["steps"]
    assert [len(step["effects"]) for step in (first, second, third)] == [4, 3, 2]
    module, blocks = copy.deepcopy(net.module), find(net.module, net.example).blocks
    gone = {name: blocks[name] for name in (first["block"], second["block"], third["block"])}
    answers = Answers(net.module, ctx, 128)
    with without(module, gone):
        assert answers.change(module) == pytest.approx(third["effects"][third["block"]], rel=1e-4)


@pytest.mark.parametrize("target", ["macs", "params"])
def test_the_target_is_met_with_as_few_blocks_as_do(net, tmp_path, target):
    small, reports = layers(net, tmp_path, **{target: 0.6})
    report = reports["depth"]
    share = report[target]["after"] / report[target]["before"]
    a_block = (1 - share) / len(report["gone"])
    assert share <= 0.6 < share + a_block
    assert report["macs"]["after"] == torch_macs(small.module, small.example)


def test_a_text_model_is_saved_and_exported_without_a_layer(tmp_path):
    model = built("encoders.py:bert", TEXTS, TESTS)
    blocks = find(model.module, model.example).blocks
    first, second = blocks
    assert (first, second) == ("model.bert.encoder.layer.0", "model.bert.encoder.layer.1")
    small = model.edited("stages.prune.depth.bypass:bypassed", blocks={first: blocks[first]})
    save_exactly(small, tmp_path / "saved", TESTS)
    file = deploy(small, tmp_path / "model.onnx")
    (logits,) = onnxruntime.InferenceSession(file.path).run(None, {name: v.numpy() for name, v in TEXTS.items()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(logits), call(small.module, TEXTS)["logits"], atol=1e-5)


def test_weights_of_attention_that_nobody_reads_keep_no_block():
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64)
    module = BertForSequenceClassification._from_config(config, attn_implementation="eager").eval()
    texts = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    blocks, others = find(module, texts)
    assert ([*blocks], others) == ([f"bert.encoder.layer.{i}" for i in range(3)], [])


def test_of_a_t5_the_attention_with_the_positions_stays():
    config = T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=3, num_heads=4)
    blocks, others = find(T5EncoderModel(config).eval(), {"input_ids": IDS})
    assert others == ["encoder.block.0.layer.0"]
    assert [*blocks] == ["encoder.block.0.layer.1", "encoder.block.1", "encoder.block.2"]


def test_recovery_trains_what_is_left(net, tmp_path):
    small, reports = layers(net, tmp_path, blocks=3, recovery={"epochs": 1, "teacher": "labels"})
    assert len(reports["recovery"]) == 1
    assert [name for name, _ in small.module.blocks.named_children()] == ["0", "1", "2", "3"]


def test_a_block_with_something_in_it_that_is_ignored_stays(net, tmp_path):
    small, reports = layers(net, tmp_path, blocks=2, ignore=["blocks.1.conv1"])
    assert reports["depth"]["gone"] == ["blocks.3"]
    assert small.module.blocks[1].conv1.weight.equal(net.module.blocks[1].conv1.weight)


@pytest.mark.parametrize(("settings", "message"), [
    ({"blocks": 4}, "blocks that can be left out: 4, of them to stay: 4; expected fewer than 4 to stay"),
    ({"macs": 0.01}, r"without all blocks that can be left out 0\.\d+ of the macs remain"),
    ({"blocks": 1, "ignore": ["blokcs"]}, "`ignore` names `blokcs`, which the model does not have"),
    ({"blocks": 0, "ignore": ["blocks"]}, "no block can be left out"),
])  # fmt: skip
def test_the_plan_refuses_what_cannot_be(net, settings, message):
    with pytest.raises(ConfigError, match=message):
        [*LayerPruning(**settings).reach(net)]


def test_a_run_without_training_says_how_many_blocks_there_are(net, tmp_path):
    with pytest.raises(StageError, match="blocks that can be left out: 4, of them to stay: 4"):
        layers(net, tmp_path, blocks=4)


def test_the_plan_says_which_blocks(net):
    (note,) = LayerPruning(blocks=1).reach(net)
    assert str(note).startswith("can be left out: 4 blocks (`blocks.0`, `blocks.1`,")


def test_what_stands_behind_is_checked_with_all_blocks(net):
    preview, behind = preview_of(net), ChannelPruning(macs=0.9, ignore=("none",))
    stage = LayerPruning(blocks=1)
    refused("`ignore` names `none`", behind.reach(stage.outlook(net, [], preview), [stage]))


def test_a_network_without_blocks_is_refused(tmp_path):
    with pytest.raises(StageError, match="no block can be left out"):
        layers(built("prune_nets.py:PlainNet"), tmp_path, blocks=1)


@pytest.mark.parametrize("settings", [{}, {"blocks": 1, "macs": 0.5}])
def test_one_target_is_given(settings):
    with pytest.raises(ValueError, match="exactly one target"):
        LayerPruning(**settings)
