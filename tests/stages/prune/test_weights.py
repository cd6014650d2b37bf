"""The stage: counts, patterns, steps, zeros that stay, what it says and what it refuses."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pipeline.build.syntax.parse import parse
from pipeline.deploy import deploy
from pipeline.errors import Note, StageError
from pipeline.measure.size import size_bytes
from pipeline.model import OnnxModel, TorchModel
from pipeline.run.roundtrip import save_exactly
from stages.prune.channels import ChannelPruning
from stages.prune.lowrank import LowRankFactorization
from stages.prune.training.recovery import IDLE_STEPS, Recovery
from stages.prune.weights import BYTES, WeightPruning
from stages.quantize.aware import AwareQuantization
from stages.quantize.pack import WeightPacking
from stages.quantize.static import StaticQuantization
from stages.train.supervised import SupervisedTraining
from stages.trainer.zeros import held
from tests.contexts import preview_of, refused
from tests.stages.prune.prune_nets import HERE, built, context
from tests.stages.prune.sparse.sparse_nets import HERE as SPARSE


def ran(model: TorchModel, folder: Path, **settings: Any) -> tuple[TorchModel, Any, list[str]]:
    """The pruned model, what is reported, and what is said."""
    reports: dict[str, Any] = {}
    said: list[str] = []
    folder.mkdir(exist_ok=True)
    result = WeightPruning(**settings).run(model, context(folder, reports, warn=said.append))
    return result, {**reports["sparsity"], "reports": reports}, said


def weight(model: TorchModel, name: str) -> Tensor:
    return model.module.get_parameter(name).detach()


def zeros(model: TorchModel, name: str) -> int:
    return int((weight(model, name) == 0).sum())


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_so_many_weights_are_zero_in_each_layer_and_the_report_says_so(tmp_path: Path, method: str) -> None:
    model = built("prune_nets.py:MobileNet")
    result, report, said = ran(model, tmp_path, sparsity=0.6, method=method, ignore=("stem", "depth*"))
    names = ["expand.weight", "project.weight", "grouped.weight"]
    assert [*report["layers"]] == names
    for name, row in report["layers"].items():
        size = weight(model, name).numel()
        assert row["zeros"] == zeros(result, name) == int(0.6 * size + 0.5)
        assert (row["weights"], row["method"]) == (size, method)
        assert 0 < row["output_error"] < 1
    total = sum(zeros(result, name) for name in names)
    assert report["achieved"] == total / sum(weight(model, name).numel() for name in names)
    assert report["of_all_parameters"] == total / sum(p.numel() for p in model.module.parameters())
    assert report["dense"] == ["head"]
    assert not said
    others = {name for name, p in model.module.named_parameters() if p.equal(weight(result, name))}
    assert others == {name for name, _ in model.module.named_parameters()} - {*names}
    assert [*held(result.module)] == names
    save_exactly(result, tmp_path / "saved", HERE)


def test_by_magnitude_the_smallest_go_and_the_others_stay(tmp_path: Path) -> None:
    model = built("prune_nets.py:PlainNet")
    result, report, _ = ran(model, tmp_path, sparsity=0.7, first_last=True)
    for name in ("one.weight", "two.weight", "head.weight"):
        before, after = weight(model, name), weight(result, name)
        assert before[after == 0].abs().max() < before[after != 0].abs().min()
        assert torch.equal(before[after != 0], after[after != 0])
    change = weight(model, "one.weight") - weight(result, "one.weight")
    images = torch.cat([batch.inputs["input"] for batch in context(tmp_path, {}).calibration.loader(64)])
    with torch.no_grad():
        lost, output = nn.functional.conv2d(images, change, padding=1), model.module.one(images)
    expected = float(lost.square().sum() / output.square().sum())
    assert report["layers"]["one.weight"]["output_error"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize(("pattern", "kept", "of"), [("2:4", 2, 4), ("1:8", 1, 8)])
def test_of_each_few_input_channels_so_many_stay(tmp_path: Path, method: str, pattern: str, kept: int, of: int) -> None:
    model = built("sparse_nets.py:Wide", folder=SPARSE, width=16)
    result, report, _ = ran(model, tmp_path, pattern=pattern, method=method)
    for name in ("two.weight", "three.weight"):
        value = weight(result, name)
        for out, row, column, start in np.ndindex(16, 3, 3, 16 // of):
            few = value[out, start * of : (start + 1) * of, row, column]
            assert int((few != 0).sum()) == kept
    assert report["achieved"] == 1 - kept / of
    assert report["requested"] == pattern
    assert report["steps"] == [{"target": 1 - kept / of, "achieved": 1 - kept / of}]


def test_the_error_falls_from_magnitude_to_wanda_to_sparsegpt(tmp_path: Path) -> None:
    model = built("sparse_nets.py:Wide", folder=SPARSE, width=16)
    errors = {
        method: ran(model, tmp_path, sparsity=0.5, method=method)[1]["layers"]["three.weight"]["output_error"]
        for method in ("magnitude", "wanda", "sparsegpt")
    }
    assert errors["sparsegpt"] < errors["wanda"] < errors["magnitude"]


def test_all_layers_ranked_together_have_other_shares(tmp_path: Path) -> None:
    model = built("prune_nets.py:PlainNet")
    result, report, _ = ran(model, tmp_path, sparsity=0.9, scope="global", first_last=True)
    shares = [row["sparsity"] for row in report["layers"].values()]
    assert report["achieved"] == pytest.approx(0.9, abs=1e-4)
    assert max(shares) - min(shares) > 0.2
    assert max(shares) < 1
    for name in report["layers"]:
        before, gone = weight(model, name).abs(), weight(result, name) == 0
        assert before[gone].max() < before[~gone].min()


def test_the_share_rises_as_a_cube_and_recovery_is_divided(tmp_path: Path) -> None:
    model = built("prune_nets.py:PlainNet")
    recovery = {"epochs": 5, "batch_size": 256, "teacher": "labels"}
    result, report, _ = ran(model, tmp_path, sparsity=0.8, steps=3, method="wanda", recovery=recovery)
    targets = [step["target"] for step in report["steps"]]
    assert targets == pytest.approx([0.8 * (1 - (2 / 3) ** 3), 0.8 * (1 - (1 / 3) ** 3), 0.8])
    assert [step["achieved"] for step in report["steps"]] == pytest.approx(targets, abs=2e-3)
    assert [len(report["reports"][f"recovery_{i}"]) for i in (1, 2, 3)] == [1, 2, 2]
    assert report["achieved"] == pytest.approx(0.8, abs=2e-3)
    assert len(result.edits) == 1
    gradual, _, _ = ran(model, tmp_path, sparsity=0.8, steps=3, method="sparsegpt")
    assert zeros(gradual, "two.weight") == pytest.approx(0.8 * weight(gradual, "two.weight").numel(), abs=2)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_zeros_stay_in_recovery_and_in_every_training_behind(tmp_path: Path, optimizer: str) -> None:
    model = built("sparse_nets.py:Wide", folder=SPARSE, width=16)
    bare, _, _ = ran(model, tmp_path / "bare", pattern="2:4")
    training: dict[str, Any] = {"epochs": 2, "optimizer": optimizer, "weight_decay": 0.1}
    recovered, _, _ = ran(model, tmp_path / "recovered", pattern="2:4", recovery=training)
    save_exactly(recovered, tmp_path / "saved", SPARSE)
    loaded = TorchModel.load(tmp_path / "saved", SPARSE)
    later = SupervisedTraining(**training).run(loaded, context(tmp_path / "later", {}))
    for name in ("two.weight", "three.weight"):
        for before, after in ((bare, recovered), (recovered, later)):
            assert torch.equal(weight(before, name) == 0, weight(after, name) == 0)
            assert not torch.equal(weight(before, name), weight(after, name))
    assert zeros(later, "head.weight") == 0


def test_zeros_stay_where_channels_leave(tmp_path: Path) -> None:
    model = built("sparse_nets.py:Wide", folder=SPARSE, width=16)
    sparse, _, _ = ran(model, tmp_path, sparsity=0.8)
    recovery = Recovery(epochs=1, batch_size=256)
    small = ChannelPruning(channels=0.5, recovery=recovery).run(sparse, context(tmp_path, {}))
    bare = ChannelPruning(channels=0.5).run(sparse, context(tmp_path, {}))
    for name in ("two.weight", "three.weight"):
        assert weight(small, name).numel() < weight(sparse, name).numel()
        assert zeros(small, name) > 0
        assert torch.equal(weight(bare, name) == 0, weight(small, name) == 0)
    save_exactly(small, tmp_path / "saved", SPARSE)


def integers(path: Path) -> dict[str, np.ndarray]:
    tensors = onnx.load(path).graph.initializer
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors}
    return {name: array for name, array in arrays.items() if array.dtype == np.int8 and array.ndim == 4}


def packed(model: OnnxModel, folder: Path) -> int:
    folder.mkdir()
    return size_bytes(WeightPacking().run(model, context(folder, {})))


def test_zeros_stay_where_integers_are_trained(tmp_path: Path) -> None:
    model = built("sparse_nets.py:Wide", folder=SPARSE, width=16)
    sparse, _, _ = ran(model, tmp_path, pattern="2:4")
    (tmp_path / "aware").mkdir()
    aware = AwareQuantization(epochs=1, batch_size=128).run(sparse, context(tmp_path / "aware", {}))
    for name in ("two.weight", "three.weight"):
        assert torch.equal(weight(sparse, name) == 0, weight(aware, name) == 0)
        assert not torch.equal(weight(sparse, name), weight(aware, name))
    file = deploy(aware, tmp_path / "aware.onnx")
    shares = [float((array == 0).mean()) for array in integers(file.path).values()]
    assert sorted(shares)[1] >= 0.5


def test_zeros_stay_in_the_integers_of_a_file_and_pack_makes_bytes_of_them(tmp_path: Path) -> None:
    model = built("sparse_nets.py:Wide", folder=SPARSE)
    sparse, _, _ = ran(model, tmp_path, sparsity=0.9)
    dense, file = (deploy(one, tmp_path / f"{one is model}.onnx") for one in (model, sparse))
    assert size_bytes(file) == size_bytes(dense)
    static = StaticQuantization().run(file, context(tmp_path / "static", {}))
    convolutions = [array for array in integers(static.path).values() if array.shape[:2] == (64, 64)]
    for array, layer in zip(convolutions, ("two", "three"), strict=True):
        assert not array[(weight(sparse, f"{layer}.weight") == 0).numpy()].any()
    assert packed(static, tmp_path / "packed") < 0.35 * size_bytes(static)


def test_a_tied_weight_is_pruned_once_and_stays_tied(tmp_path: Path) -> None:
    model = built("sparse_nets.py:Twice", folder=SPARSE)
    result, report, _ = ran(model, tmp_path, sparsity=0.5, method="sparsegpt")
    assert [*report["layers"]] == ["one.weight"]
    assert result.module.one.weight is result.module.two.weight
    assert zeros(result, "one.weight") == 128
    assert report["dense"] == ["embed", "head"]
    save_exactly(result, tmp_path / "saved", SPARSE)
    refused("all weights stay", WeightPruning(sparsity=0.5, ignore=("two",)).reach(model))


def test_an_embedding_stays_dense_and_so_does_the_head_that_is_tied_to_it() -> None:
    model = built("prune_nets.py:Tied", {"tokens": torch.zeros(2, 5, dtype=torch.int64)})
    notes = [*WeightPruning(sparsity=0.5, first_last=True).reach(model)]
    assert notes == [
        "zeros come into 2 weights (`up.weight`, `down.weight`)",
        "no zeros come into 1 weight (`embedding.weight`) of other kinds of layers",
        BYTES,
    ]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
def test_weights_that_are_computed_become_plain_ones_first(tmp_path: Path) -> None:
    model = built("prune_nets.py:Normalized", kind="parametrizations.weight_norm")
    note, *_ = WeightPruning(sparsity=0.5, first_last=True).reach(model)
    result, _, said = ran(model, tmp_path, sparsity=0.5, first_last=True)
    assert "2 layers (`one`, `two`), which are plain ones then" in said[0]
    assert note == said[0]
    assert zeros(result, "two.weight") == 16 * 32 * 9 // 2
    save_exactly(result, tmp_path / "saved", HERE)


def test_what_is_reached_and_what_is_not_is_told_before_work() -> None:
    odd = built("sparse_nets.py:Odd", folder=SPARSE)
    notes = [*WeightPruning(sparsity=0.5, method="wanda").reach(odd)]
    assert all(isinstance(note, Note) for note in notes)
    assert notes == [
        "zeros come into 2 weights (`padded.weight`, `unused.weight`)",
        "no zeros come into 2 layers (`stem`, `head`): the first and the last stay dense without `first_last: true`",
        "no zeros come into 1 layer (`standardized`): what is computed with is made of the weight at each call",
        "no zeros come into 1 weight (`table`) of other kinds of layers",
        "zeros of 1 weight (`unused.weight`) are chosen by magnitude: what is multiplied with them is not seen",
        BYTES,
    ]
    encoder = built("prune_nets.py:Encoder", layers=1)
    told = [*WeightPruning(sparsity=0.5, method="sparsegpt", first_last=True).reach(encoder)]
    assert "`encoder.layers.0.self_attn.in_proj_weight`" in told[1]
    assert "magnitude" in told[1]


def test_a_layer_with_a_forward_of_its_own_is_seen(tmp_path: Path) -> None:
    model = built("sparse_nets.py:Odd", folder=SPARSE)
    _, report, said = ran(model, tmp_path, sparsity=0.5, method="sparsegpt")
    assert report["layers"]["padded.weight"]["method"] == "sparsegpt"
    assert report["layers"]["unused.weight"]["method"] == "magnitude"
    assert report["dense"] == ["stem", "head", "standardized", "table"]
    assert said == [
        "zeros of 1 weight (`unused.weight`) are chosen by magnitude: what is multiplied with them is not seen"
    ]


def test_recurrent_layers_and_attention_are_pruned_by_magnitude_and_named(tmp_path: Path) -> None:
    for net, name, size in (
        ("Recurrent", "gru.weight_hh_l0", 192), ("Encoder", "encoder.layers.0.self_attn.in_proj_weight", 3072)
    ):  # fmt: skip
        model = built(f"prune_nets.py:{net}")
        result, report, said = ran(model, tmp_path, pattern="2:4", method="wanda")
        assert report["layers"][name] == {
            "weights": size, "zeros": size // 2, "sparsity": 0.5, "method": "magnitude", "output_error": None
        }  # fmt: skip
        kept = weight(result, name).reshape(-1, 4)
        expected = weight(model, name).reshape(-1, 4).abs().sort(1).values[:, 2:]
        torch.testing.assert_close(kept.abs().sort(1).values[:, 2:], expected)
        assert "are chosen by magnitude" in said[0]
        assert name in said[0]


def test_a_pattern_that_does_not_fit_is_told_before_work_with_the_layers(tmp_path: Path) -> None:
    model = built("prune_nets.py:MobileNet")
    stage = WeightPruning(pattern="2:4", first_last=True)
    message = (
        r"`pattern: 2:4` does not fit the inputs of `stem\.weight` \(1\), `depthwise\.weight` \(1\); expected a "
        r"multiple of 4 inputs\. Leave them as they are: `ignore: \[stem, depthwise\]`"
    )
    refused(message, stage.reach(model))
    with pytest.raises(StageError, match=message):
        stage.run(model, context(tmp_path, {}))
    fitting = WeightPruning(pattern="2:4", ignore=("stem", "*wise"), first_last=True)
    assert next(iter(fitting.reach(model))).startswith("zeros come into 4 weights (`expand.weight`")


def test_nothing_left_and_names_that_fit_nothing_are_told_before_work() -> None:
    model = built("prune_nets.py:PlainNet")
    message = r"all weights stay .* and the first and the last layer; .* Set `first_last: true`"
    refused(message, WeightPruning(sparsity=0.5, ignore=("two",)).reach(model))
    refused("Name less in `ignore`", WeightPruning(sparsity=0.5, ignore=("*",), first_last=True).reach(model))
    refused("`ignore` names `tow`, .* did you mean `two`", WeightPruning(sparsity=0.5, ignore=("tow",)).reach(model))


def test_a_share_of_less_than_one_weight_is_refused_before_work() -> None:
    model = built("prune_nets.py:PlainNet")
    refused(r"less than one of the 4,608 .* expected at least 0\.00022", WeightPruning(sparsity=1e-4).reach(model))
    assert [*WeightPruning(sparsity=1.1e-4).reach(model)]
    together = {"scope": "global", "first_last": True}  # 144 and 512 more
    refused("less than one of the 5,264", WeightPruning(sparsity=9e-5, **together).reach(model))
    assert [*WeightPruning(sparsity=1e-4, **together).reach(model)]


def test_a_pattern_behind_widths_that_it_may_not_fit_is_warned_of() -> None:
    preview, pattern = preview_of(built("prune_nets.py:PlainNet")), WeightPruning(pattern="2:4")
    (warning,) = pattern.check([ChannelPruning(macs=0.5, round_to=2)], preview)
    assert warning.startswith("`pattern: 2:4` may not fit the widths that a stage before this one leaves")
    assert warning.endswith("they must be multiples of 4, to which `round_to` may round them")
    assert [*pattern.check([LowRankFactorization(params=0.8, round_to=6)], preview)]
    assert not [*pattern.check([ChannelPruning(macs=0.5)], preview)]
    assert not [*WeightPruning(sparsity=0.5).check([ChannelPruning(macs=0.5, round_to=2)], preview)]


def test_idle_steps_are_told_before_work() -> None:
    preview = preview_of(built("prune_nets.py:PlainNet"))
    assert [*WeightPruning(sparsity=0.5, steps=2).check([], preview)] == [IDLE_STEPS]
    assert not [*WeightPruning(sparsity=0.5, method="wanda").check([], preview)]


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    model, aware = built("prune_nets.py:PlainNet"), AwareQuantization(epochs=1, batch_size=256)
    stage = WeightPruning(sparsity=0.5)
    refused("the weights are quantized", stage.check([aware], preview_of(model)))
    quantized = aware.run(model, context(tmp_path, {}))
    with pytest.raises(StageError, match=r"the weights are quantized.* Put prune\.weights before quantize\.aware"):
        stage.run(quantized, context(tmp_path, {}))


def test_a_layer_that_is_zero_altogether_is_warned_of(tmp_path: Path) -> None:
    model = built("prune_nets.py:PlainNet")
    model.module.two.weight.data.zero_()
    _, _, said = ran(model, tmp_path, sparsity=0.5, first_last=True)
    assert said == ["`two.weight` is zero altogether; name its layer in `ignore`, or ask for fewer zeros"]
    assert not isinstance(said[0], Note)


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "exactly one target of `sparsity`, `pattern`, such as `sparsity: 0.5`"),
    ({"sparsity": 0.5, "pattern": "2:4"}, "exactly one target of"),
    ({"sparsity": 0.0}, "greater than 0"),
    ({"sparsity": 1.0}, "less than 1"),
    ({"pattern": "4:2"}, "`4:2` is no pattern"),
    ({"pattern": "4:4"}, "is no pattern"),
    ({"pattern": "0:4"}, "is no pattern"),
    ({"pattern": "2:4", "steps": 2}, "a pattern is made at once"),
    ({"pattern": "2:4", "scope": "global"}, "`scope: global` ranks magnitudes"),
    ({"sparsity": 0.5, "scope": "global", "method": "wanda"}, "`scope: global` ranks magnitudes"),
    ({"sparsity": 0.5, "method": "gptq"}, "'magnitude', 'wanda' or 'sparsegpt'"),
    ({"sparsity": 0.5, "steps": 3, "recovery": {"epochs": 2}}, "2 epochs of recovery cannot be divided among 3"),
])  # fmt: skip
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WeightPruning(**settings)


def test_a_pattern_needs_no_quotes_in_a_file() -> None:
    assert parse("stages: [{use: prune.weights, pattern: 2:4}]")["stages"][0]["pattern"] == "2:4"


def test_where_no_weight_becomes_zero_it_is_refused(tmp_path: Path) -> None:
    model = built("prune_nets.py:PlainNet")
    with torch.no_grad():
        model.module.two.weight[:24] = 0
    with pytest.raises(StageError, match="no weight became zero: 3,456 of 4,608 are already"):
        ran(model, tmp_path, sparsity=0.5)


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    model = built("prune_nets.py:PlainNet")
    with torch.no_grad():
        model.module.two.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(StageError, match=r"`two.weight` is not finite"):
        ran(model, tmp_path, sparsity=0.5)
