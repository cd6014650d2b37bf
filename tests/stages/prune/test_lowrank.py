"""The stage: targets, what it reports, the saved model, what stands before and behind it, and what it refuses."""

import copy
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
from stages.prune import lowrank
from stages.prune.channels import ChannelPruning
from stages.prune.lowrank import LowRankFactorization
from stages.prune.ranks.layers import GROUPED
from stages.prune.weights import WeightPruning
from stages.quantize.aware import AwareQuantization
from stages.quantize.static import StaticQuantization
from stages.trainer.loop import TrainingSettings, train
from stages.trainer.objective import Supervised
from tests.contexts import preview_of, refused
from tests.stages.prune.prune_nets import DIGITS, HERE, built, context
from tests.trained import score

INPUTS = {"input": torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))}


TRAINING = {"epochs": 2, "learning_rate": 5e-3, "batch_size": 32}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    ctx = context(tmp_path_factory.mktemp("trained"), {})
    model = built("models.py:DigitNet", folder=DIGITS, width=16, blocks=1)
    return train(model, Supervised(ctx), TrainingSettings(**TRAINING), ctx)


def content(model):
    return {name: value.numpy().tobytes() for name, value in model.module.state_dict().items()}


def exported(model, tmp_path):
    """The file, which gives what the module gives."""
    onnx = deploy(model, tmp_path / "model.onnx")
    assert torch.allclose(onnx.predict(INPUTS)["output"], model.predict(INPUTS)["output"], atol=1e-5)
    return onnx


def factorized(model, tmp_path, **settings):
    reports = {}
    small = LowRankFactorization(**settings).run(model, context(tmp_path, reports))
    return small, reports["lowrank"]


@pytest.mark.parametrize(("name", "target", "metric", "method"), [
    ("macs", 0.7, "weights", "tucker"),
    ("macs", 0.4, "activations", "tucker"),
    ("params", 0.5, "weights", "spatial"),
    ("macs", 0.5, "activations", "spatial"),
])  # fmt: skip
def test_the_target_holds_and_what_is_reported_is_measured(tmp_path, name, target, metric, method):
    model = built("prune_nets.py:PlainNet", a=24, b=32)
    before = content(model)
    small, report = factorized(model, tmp_path, metric=metric, method=method, round_to=2, **{name: target})
    assert content(model) == before
    assert (report["target"], report["requested"]) == (name, target)
    assert 0.9 * target < report["achieved"] <= target
    measured = {
        "macs": [torch_macs(m.module, m.example) for m in (model, small)],
        "params": [torch_params(m.module) for m in (model, small)],
    }
    for kind, (old, new) in measured.items():
        assert report[kind] == {"before": old, "after": new}
    assert report["achieved"] == measured[name][1] / measured[name][0]
    save_exactly(small, tmp_path / "saved", HERE)


@pytest.mark.parametrize(("energy", "staying"), [(0.75, []), (0.84, ["head"])])
def test_each_layer_keeps_the_energy_that_is_asked_for(tmp_path, energy, staying):
    model = built("ranks/rank_nets.py:Wide")
    small, report = factorized(model, tmp_path, energy=energy, metric="weights", round_to=1)
    for name in ("one", "two", "head"):
        weight = model.module.get_submodule(name).weight
        squares = torch.linalg.svdvals(weight).square()
        shares = squares.cumsum(0) / squares.sum()
        rank = int((shares < energy).sum()) + 1
        if rank * sum(weight.shape) >= weight.numel():
            assert name in staying
            continue
        assert report["layers"][name]["ranks"] == [rank] == [small.module.get_submodule(name)[0].out_features]
        assert report["layers"][name]["energy"] == pytest.approx(float(shares[rank - 1]), rel=1e-5)
    assert sorted({"one", "two", "head"} - set(report["layers"])) == staying
    assert [sorted(names) for names in report["stay"].values()] == [staying] * bool(staying)
    assert report["achieved"] == min(layer["energy"] for layer in report["layers"].values()) >= energy


def test_without_bias_the_error_of_a_linear_layer_is_what_its_energy_says(tmp_path):
    _, report = factorized(built("ranks/rank_nets.py:Wide"), tmp_path, rank={"two": 6})
    layer = report["layers"]["two"]
    assert layer["ranks"] == [6]
    assert layer["error"] == pytest.approx((1 - layer["energy"]) ** 0.5, rel=1e-4)
    _, plain = factorized(built("ranks/rank_nets.py:Wide"), tmp_path, rank={"two": 6}, metric="weights")
    assert layer["error"] < 0.8 * plain["layers"]["two"]["error"]


def test_on_related_channels_activations_make_smaller_errors_than_weights(tmp_path):
    model = built("models.py:DigitNet", folder=DIGITS, width=16, blocks=2)
    errors = [
        [
            layer["error"]
            for layer in factorized(model, tmp_path, rank={"blocks.*": 6}, metric=metric)[1]["layers"].values()
        ]
        for metric in ("activations", "weights")
    ]
    assert len(errors[0]) == 4
    assert all(ours < plain for ours, plain in zip(*errors, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("net", "method"), [("PlainNet", "spatial"), ("Encoder", "tucker")])
def test_the_file_gives_the_same(tmp_path, net, method):
    small, report = factorized(built(f"prune_nets.py:{net}"), tmp_path, params=0.8, round_to=1, method=method)
    assert onnx_macs(exported(small, tmp_path)) == report["macs"]["after"]


@pytest.mark.slow
def test_a_new_process_gives_the_same_outputs_to_the_bit(tmp_path):
    small, _ = factorized(
        built("models.py:DigitNet", folder=DIGITS, width=16, blocks=2), tmp_path, macs=0.5, round_to=2
    )
    small.save(tmp_path / "saved")
    save_file(INPUTS, tmp_path / "inputs.safetensors")
    code = (
        "import sys; from pathlib import Path; from safetensors.torch import load_file, save_file\n"
        "import torch; torch.set_num_threads(int(sys.argv[3])); from pipeline.model import load\n"
        "here = Path(sys.argv[1]); model = load(here / 'saved', Path(sys.argv[2]))\n"
        "save_file(model.predict(load_file(here / 'inputs.safetensors')), here / 'outputs.safetensors')"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(DIGITS), str(torch.get_num_threads())]
    subprocess.run(command, check=True, timeout=120)
    there, here = load_file(tmp_path / "outputs.safetensors"), small.predict(INPUTS)
    assert torch.equal(there["output"], here["output"])


def test_attention_of_torch_and_tied_weights_stay(tmp_path):
    model = built("prune_nets.py:Encoder")
    small, report = factorized(model, tmp_path, params=0.8, round_to=4)
    assert {n for n, part in small.module.named_modules() if isinstance(part, torch.nn.Sequential)} == {
        *report["layers"]
    }
    assert not any("attn" in name for name in report["layers"])
    tied = built("prune_nets.py:Tied", {"tokens": torch.randint(20, (2, 5))})
    assert [*LowRankFactorization(rank={"*": 5}).reach(tied)] == [
        "1 layer (`head`) stays as before: the weight is in other places too",
        "factorizes 2 layers (`up` at rank 5, `down` at rank 5)",
    ]


def test_channels_are_pruned_before_and_behind_it_and_it_stands_twice(tmp_path):
    model = built("prune_nets.py:PlainNet", a=24, b=32)
    narrow = ChannelPruning(channels=0.7, round_to=4).run(model, context(tmp_path, {}))
    small, _ = factorized(narrow, tmp_path, macs=0.6, round_to=2)
    narrower = ChannelPruning(channels=0.8, round_to=1).run(small, context(tmp_path, {}))
    again, _ = factorized(narrower, tmp_path, params=0.9, round_to=1)
    assert len(again.edits) == 4
    macs = [torch_macs(m.module, m.example) for m in (model, narrow, small, narrower, again)]
    assert macs == sorted(macs, reverse=True)
    assert len({*macs}) == 5
    save_exactly(again, tmp_path / "saved", HERE)


def test_integers_stand_behind_it(tmp_path, trained):
    ctx = context(tmp_path, {})
    small, _ = factorized(trained, tmp_path, macs=0.6, round_to=4)
    floats = exported(small, tmp_path)
    integers = StaticQuantization().run(floats, context(tmp_path, {}))
    inputs = next(iter(ctx.validation.loader(256))).inputs
    one, other = (m.predict(inputs)["output"].argmax(1) for m in (floats, integers))
    assert float((one == other).float().mean()) > 0.95


@pytest.mark.slow
def test_integers_are_trained_behind_it(tmp_path, trained):
    ctx = context(tmp_path, {})
    small, _ = factorized(trained, tmp_path, macs=0.6, round_to=4)
    aware = AwareQuantization(epochs=1, batch_size=32).run(small, context(tmp_path, reports := {}))
    assert score(aware, ctx) > score(small, ctx) - 0.05
    assert {name.removesuffix(".weight") for name in reports["aware"]["weights"]} >= {
        "blocks.0.conv1.0",
        "blocks.0.conv1.1",
    }


def test_recovery_makes_up_for_what_is_lost(tmp_path, trained):
    reports = {}
    ctx = context(tmp_path, reports)
    bare = LowRankFactorization(rank={"blocks.*": 1}).run(trained, ctx)
    stage = LowRankFactorization(rank={"blocks.*": 1}, recovery=TRAINING)
    recovered = stage.run(trained, ctx)
    assert score(recovered, ctx) > score(bare, ctx) + 0.05
    assert len(reports["recovery"]) == 2
    assert [*stage.trainings()]
    save_exactly(recovered, tmp_path / "saved", DIGITS)
    with pytest.raises(ConfigError, match="there is no baseline yet"):
        LowRankFactorization(macs=0.5, recovery={"epochs": 1, "teacher": "baseline"}).run(trained, ctx)


def test_what_it_reaches_is_told_before_work():
    model = built("prune_nets.py:MobileNet")
    notes = [*LowRankFactorization(params=0.9, round_to=4).reach(model)]
    assert all(isinstance(note, Note) for note in notes)
    assert notes == [
        f"2 layers (`depthwise`, `grouped`) stay as before: {GROUPED}",
        "2 layers (`stem`, `head`) stay as before: no rank that is a multiple of 4 has fewer MACs and parameters",
        "can factorize 2 layers (`expand` at rank 4 to 8, `project` at rank 4 to 8); trained weights tell which ranks "
        "they take",
    ]
    told = LowRankFactorization(rank={"[ep]*": 4}, ignore=("project",))
    assert [*told.reach(model)] == ["factorizes 1 layer (`expand` at rank 4)"]


def test_what_comes_out_is_known_before_work_where_ranks_are_told(tmp_path):
    model = built("prune_nets.py:PlainNet")
    told = LowRankFactorization(rank={"two": (4, 6)})
    small = told.run(model, context(tmp_path, {}))
    ahead = told.outlook(model, [], preview_of(model))
    shapes = [{name: value.shape for name, value in m.module.state_dict().items()} for m in (small, ahead)]
    assert shapes[0] == shapes[1]
    assert LowRankFactorization(macs=0.5).outlook(model, [], preview_of(model)) is None


def test_what_stays_and_what_rounding_takes_is_noted(tmp_path):
    notes = []
    stage = LowRankFactorization(macs=0.5)
    stage.run(built("prune_nets.py:PlainNet"), context(tmp_path, {}, warn=notes.append))
    assert all(isinstance(note, Note) for note in notes)
    assert notes[0].startswith("2 layers (`one`, `head`) stay as before: no rank that is a multiple of 8")
    assert notes[-1] == (
        "`macs: 0.5` was asked for and 0.408 remains; ranks are multiples of round_to = 8, a smaller one comes closer"
    )


@pytest.mark.parametrize(("settings", "message"), [
    ({"macs": 0.1}, r"target macs: 0.1: the cost is still 71,168 with all layers at their lowest ranks; expected at "
     r"most 30,464\. Set `macs: 0.234` or more, lower `round_to` or shorten `ignore`"),
    ({"params": 0.2}, r"target params: 0.2: the cost is still .*Set `params: 0\.\d+` or more"),
    ({"macs": 0.5, "round_to": 64}, r"no layer can be factorized: 3 layers .*a multiple of 64 .* Lower `ro"),
    ({"macs": 0.5, "ignore": ("*",)}, "no layer can be factorized: it has no linear layer or convolution outside of"),
    ({"macs": 0.5, "ignore": ("tow",)}, "`ignore` names `tow`, which the model does not have; did you mean `two`"),
    ({"rank": {"tow": 4}}, "`rank` names `tow`, which is no layer that can be factorized; did you mean `two`"),
    ({"rank": {"two": 30}}, r"`rank` 30 makes `two` no smaller; expected at most 24"),
    ({"rank": {"two": (8, 8, 8)}}, ""),
])  # fmt: skip
def test_what_cannot_work_is_refused_before_work_and_when_it_runs(tmp_path, settings, message):
    if not message:
        with pytest.raises(ValidationError):
            LowRankFactorization(**settings)
        return
    model, stage = built("prune_nets.py:PlainNet"), LowRankFactorization(**settings)
    refused(message, stage.reach(model))
    with pytest.raises(StageError, match=message):
        stage.run(model, context(tmp_path, {}))


def test_a_target_behind_a_stage_that_narrows_is_not_known():
    model = built("prune_nets.py:PlainNet")
    assert [*LowRankFactorization(macs=0.1).reach(model, [ChannelPruning(macs=0.5)])]


def test_energy_that_no_smaller_layer_keeps_is_told_with_one_that_it_does(tmp_path):
    model = built("ranks/rank_nets.py:Wide")
    with pytest.raises(StageError, match=r"no layer that keeps 0.99 of its energy is smaller; .*Set `energy: 0\.\d+`"):
        factorized(model, tmp_path, energy=0.99, metric="weights", ignore=("head",))


def test_weights_that_are_quantized_or_not_finite_are_refused(tmp_path):
    model = built("prune_nets.py:PlainNet")
    stage, before = LowRankFactorization(macs=0.5), [AwareQuantization(epochs=1)]
    refused("the weights are quantized, with steps", stage.check(before, preview_of(model)))
    steps = torch.nn.PReLU()
    steps.is_aside = True
    quantized = copy.copy(model)
    object.__setattr__(quantized, "module", torch.nn.Sequential(model.module, steps))
    with pytest.raises(StageError, match=r"the weights are quantized, with steps.* Put prune.lowrank before"):
        stage.run(quantized, context(tmp_path, {}))
    with torch.no_grad():
        model.module.two.weight[0] = torch.nan
    with pytest.raises(StageError, match=r"`two\.weight` is not finite"):
        LowRankFactorization(macs=0.5, metric="weights").run(model, context(tmp_path, {}))


def test_zeros_that_get_lost_are_warned_of():
    preview, before = preview_of(built("prune_nets.py:PlainNet")), [WeightPruning(sparsity=0.5)]
    assert [*LowRankFactorization(macs=0.5).check(before, preview)] == [
        "layers that become factors lose the zeros of prune.weights: put it behind prune.lowrank"
    ]
    assert [*LowRankFactorization(macs=0.5).check([], preview)] == []


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "exactly one target"),
    ({"macs": 0.5, "energy": 0.9}, "exactly one target"),
    ({"macs": 1.0}, "less than 1"),
    ({"energy": 0}, "greater than 0"),
    ({"rank": {}}, "at least 1 item"),
    ({"rank": {"two": 0}}, "greater than 0"),
    ({"macs": 0.5, "steps": 2}, "Extra inputs"),
    ({"macs": 0.5, "recovery": {"epochs": 0}}, "greater than"),
])  # fmt: skip
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValidationError, match=message):
        LowRankFactorization(**settings)


def test_the_module_defines_one_stage():
    assert stage_class(lowrank) is LowRankFactorization
