"""`keep` as a user has it: the file holds the limit, smaller ones do not, and what is out of reach is told."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from pipeline.base.use import Reference
from pipeline.context import Preview
from pipeline.deploy import deploy
from pipeline.errors import ConfigError, Interruption, StageError
from pipeline.measure.accuracy import scores_on_validation
from pipeline.measure.statistics.means import drop, retention
from pipeline.model import OnnxModel, TorchModel
from pipeline.stage import Stage
from pipeline.task import Split, Task, regression
from stages.quantize.aware import AwareQuantization
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.mixed import keeping
from stages.quantize.mixed.keep import Keep
from stages.quantize.mixed.keeping import Keeping
from stages.quantize.mixed.measuring import Row, Sensitivity
from stages.quantize.mixed.scores import scores_of
from stages.quantize.pack import WeightPacking
from stages.quantize.quantizing.assigned import Assigned
from stages.quantize.rounding.settings import schemes_of
from stages.quantize.sensitivity import QuantizationSensitivity
from stages.quantize.static import StaticQuantization
from stages.quantize.weights import WeightQuantization
from tests.aliases import Patch
from tests.contexts import context_of, quadrants

OPERATORS = ("Conv", "Gemm")
KINDS: list[Any] = [StaticQuantization, DynamicQuantization, WeightQuantization]


def scores(model: OnnxModel, task: Task) -> Any:
    return scores_on_validation(model, task, 64, lambda steps: None).numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [{"drop": 0.03}, {"retention": 0.97}], ids=["drop", "retention"])
def test_the_file_keeps_the_limit_and_what_was_smaller_does_not(
    kind: Any, limit: dict[str, float], exported: OnnxModel, task: Task, tmp_path: Path
) -> None:
    reports: dict[str, Any] = {}
    ctx = context_of(task, tmp_path / "stage", report=reports.__setitem__)
    model = kind(keep=limit).run(exported, ctx)
    ours, before = scores(model, task), scores(exported, task)
    estimate = drop(ours, before) if "drop" in limit else retention(ours, before)
    report = reports["keep"]
    assert estimate.model_dump() == pytest.approx({end: report[end] for end in ("value", "low", "high")}, abs=0.003)
    holds = (lambda one: one["high"] <= 0.03) if "drop" in limit else (lambda one: one["low"] >= 0.97)
    assert holds(report)
    smaller = [one for one in report["tried"] if one["weights_bytes"] < report["weights_bytes"]]
    assert not any(map(holds, smaller))
    assert {*report["widths"].values()} & {4, 2}
    assert "quantization" in reports


def test_the_same_file_comes_of_the_settings_that_it_reports(exported: OnnxModel, task: Task, tmp_path: Path) -> None:
    reports: dict[str, Any] = {}
    ctx = context_of(task, tmp_path / "stage", report=reports.__setitem__)
    model = StaticQuantization(keep=Keep(drop=0.03)).run(exported, ctx)
    stage = StaticQuantization.model_validate(reports["keep"]["settings"])
    again = stage.run(exported, context_of(task, tmp_path / "again"))
    assert again.path.read_bytes() == model.path.read_bytes()


def test_what_none_keeps_is_an_error_with_the_nearest(exported: OnnxModel, task: Task, tmp_path: Path) -> None:
    stage = StaticQuantization(keep=Keep(drop=0.007, widths=("ternary", 2)))
    with pytest.raises(
        StageError, match=r"no mixture of ternary, 2 keeps drop 0.007 on 600 .*the nearest has drop 0\.\d"
    ):
        stage.run(exported, context_of(task, tmp_path / "stage"))


def preview(task: Task, model: OnnxModel) -> Preview:
    return Preview(model, task)


def refused(stage: Stage, task: Task, model: OnnxModel) -> None:
    list(stage.check([], preview(task, model)))


def test_what_few_validation_examples_cannot_show_is_refused_before_work(exported: OnnxModel, task: Task) -> None:
    stage = StaticQuantization(keep=Keep(drop=0.003))
    with pytest.raises(ConfigError, match=r"600 examples: where none of them is lost 0.0061 .*1,228 or more for drop"):
        refused(stage, task, exported)


@pytest.mark.parametrize("beside", [{"bits": 4}, {"layers": {"a": 4}}])
def test_what_keep_chooses_may_not_stand_beside_it(beside: Any, exported: OnnxModel, task: Task) -> None:
    with pytest.raises(ConfigError, match=r"stands beside `keep`"):
        refused(StaticQuantization(keep=Keep(drop=0.03), **beside), task, exported)


@pytest.mark.parametrize("kind", [*KINDS, AwareQuantization])
def test_a_run_that_goes_on_has_all_settings_beside_it(kind: Any, exported: OnnxModel, task: Task) -> None:
    resolved = kind(keep={"drop": 0.03}).model_dump(mode="json")
    refused(kind.model_validate(resolved), task, exported)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({}, "one of `retention` and `drop`"),
        ({"drop": 0.1, "retention": 0.9}, "one of `retention` and `drop`"),
        ({"drop": 0.1, "widths": (8,)}, "one is no choice"),
        ({"drop": 0.1, "widths": (8, 9)}, "less than or equal to 8"),
    ],
)
def test_a_space_without_choice_is_refused(keep: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Keep(**keep)


@pytest.mark.parametrize(
    ("stage", "widths", "message"),
    [
        (
            StaticQuantization,
            ("fp16", "fp32"),
            "no width of a layer that is quantized: fp16, fp32; expected one such as 8",
        ),
        (
            StaticQuantization,
            (8, "bf16"),
            r"the width bf16; expected bits from 2 to 8, ternary, \{codebook: 16\}, fp16 or fp32",
        ),
        (WeightQuantization, (8, 3), "the width 3; expected 8, 4, 2, fp16 or fp32"),
    ],
)
def test_widths_that_the_stage_has_not_are_refused(
    stage: Any, widths: Any, message: str, exported: OnnxModel, task: Task
) -> None:
    with pytest.raises(ConfigError, match=message):
        refused(stage(keep=Keep(drop=0.03, widths=widths)), task, exported)


def test_an_empty_validation_split_is_refused(exported: OnnxModel, task: Task) -> None:
    empty = replace(task, validation=Split(quadrants(0, 0)))
    with pytest.raises(ConfigError, match="the validation split is empty"):
        refused(StaticQuantization(keep=Keep(drop=0.03)), empty, exported)


def test_layers_that_bear_no_integers_are_halves_and_pack_takes_them(
    exported: OnnxModel, task: Task, tmp_path: Path
) -> None:
    reports: dict[str, Any] = {}
    ctx = context_of(task, tmp_path / "stage", report=reports.__setitem__)
    model = StaticQuantization(keep=Keep(drop=0.03, widths=(2, "fp16", "fp32"))).run(exported, ctx)
    widths = [*reports["keep"]["widths"].values()]
    assert "fp16" in widths
    assert "fp32" not in widths
    kinds = [tensor.data_type for tensor in onnx.load(model.path).graph.initializer if len(tensor.dims) > 1]
    assert kinds.count(onnx.TensorProto.FLOAT16) == widths.count("fp16")
    assert onnx.TensorProto.FLOAT not in kinds
    packed = WeightPacking().run(model, context_of(task, tmp_path / "packed", report=reports.__setitem__))
    inputs = next(iter(task.validation.loader(32))).inputs
    assert torch.equal(packed.predict(inputs)["output"], model.predict(inputs)["output"])
    rows = [row for row in reports["packing"]["tensors"] if row["encoding"] == "fp16"]
    assert sum(row["bytes"] for row in rows) == 2 * sum(row["elements"] for row in rows) > 0


def test_what_is_kept_from_one_trial_to_the_next_changes_no_file(
    exported: OnnxModel, task: Task, tmp_path: Path
) -> None:
    stage = StaticQuantization(rounding="adaptive", bias_correction=True)
    ctx = context_of(task, tmp_path / "stage")
    nodes = [node.name for node in onnx.load(exported.path).graph.node if node.op_type in ("Conv", "Gemm")]
    with stage.trials(exported, ctx) as trial:
        for i, layers in enumerate(({}, dict.fromkeys(nodes[1:3], 4), dict.fromkeys(nodes, 3))):
            kept = trial(replace(ctx, directory=tmp_path / f"kept{i}"), Assigned(widths=layers))
            anew = stage.model_copy(update={"layers": layers}).run(exported, context_of(task, tmp_path / f"anew{i}"))
            assert kept.path.read_bytes() == anew.path.read_bytes()


def test_a_measurement_before_it_is_no_quantization(exported: OnnxModel, task: Task) -> None:
    before = [QuantizationSensitivity()]
    assert not [*StaticQuantization().check(before, preview(task, exported))]
    with pytest.raises(ConfigError, match="nothing in it is quantized"):
        WeightPacking().check(before, preview(task, exported))


def test_codebooks_are_widths_too(exported: OnnxModel, task: Task, tmp_path: Path) -> None:
    reports: dict[str, Any] = {}
    ctx = context_of(task, tmp_path / "stage", report=reports.__setitem__)
    keep = Keep.model_validate({"drop": 0.03, "widths": [8, {"codebook": 16}, {"codebook": 4}]})
    model = StaticQuantization(keep=keep).run(exported, ctx)
    report, bits = reports["keep"], {8: 8, "codebook 16": 4, "codebook 4": 2}
    assert {*report["widths"].values()} & {"codebook 16", "codebook 4"}
    elements = {row["layer"]: row["elements"] for row in reports["sensitivity"]["layers"]}
    sizes = {name: elements[name] * bits[width] / 8 for name, width in report["widths"].items()}
    assert report["weights_bytes"] == sum(sizes.values()) < 1224  # those of 8 bits
    assert report["tried"][0]["weights_bytes"] == 1224
    assert all({*one["counts"]} <= {"8 bits", "codebook 16", "codebook 4"} for one in report["tried"])
    weights = [numpy_helper.to_array(t) for t in onnx.load(model.path).graph.initializer if len(t.dims) > 1]
    values = {array.size: len(np.unique(array)) for array in weights}
    for name, width in report["widths"].items():
        assert values[elements[name]] <= 2 ** bits[width]


def test_a_codebook_larger_than_a_layer_is_no_choice_for_it(exported: OnnxModel, task: Task, tmp_path: Path) -> None:
    reports: dict[str, Any] = {}
    ctx = context_of(task, tmp_path / "stage", report=reports.__setitem__)
    keep = Keep.model_validate({"drop": 0.5, "widths": [{"codebook": 100}, {"codebook": 30}], "examples": 16})
    StaticQuantization(keep=keep, operators=OPERATORS).run(exported, ctx)
    rows = reports["sensitivity"]["layers"]
    both = ["codebook 100", "codebook 30"]
    assert {row["layer"]: [*row["effects"]] for row in rows} == {"0": both[1:], "2": both, "6": both, "8": both[1:]}
    assert reports["keep"]["tried"][0]["counts"] == dict.fromkeys(both, 2)
    wide = Keep.model_validate({"drop": 0.5, "widths": [{"codebook": 100}, {"codebook": 90}]})
    message = r"a weight of `0` has fewer numbers than each codebook of `keep`\. Add bits to `widths` under `keep`"
    with StaticQuantization().trials(exported, ctx) as trial, pytest.raises(StageError, match=message):
        Keeping(StaticQuantization(), wide, [Row(**row) for row in rows], exported, ctx, trial).smallest()


def test_a_mixture_without_a_retention_does_not_hold_and_the_search_goes_on(
    exported: OnnxModel, task: Task, tmp_path: Path, monkeypatch: Patch
) -> None:
    asked = count()

    def spoilt(model: Any, ctx: Any) -> Any:
        own = scores_of(model, ctx).copy()
        own[0] = -0.01 if next(asked) == 1 else own[0]  # of the second mixture
        return own

    monkeypatch.setattr(keeping, "scores_of", spoilt)
    reports: dict[str, Any] = {}
    ctx = context_of(task, tmp_path / "stage", report=reports.__setitem__)
    keep = Keep(retention=0.9, widths=(8, 2), examples=16)
    stage = DynamicQuantization(keep=keep, operators=OPERATORS)
    model = stage.run(exported, ctx)
    (without,) = reports["keep"]["unscored"]
    assert without["weights_bytes"] < reports["keep"]["weights_bytes"]
    assert without["counts"] not in [one["counts"] for one in reports["keep"]["tried"]]
    assert retention(scores(model, task), scores(exported, task)).low >= 0.9
    monkeypatch.setattr(keeping, "scores_of", lambda model, ctx: scores_of(model, ctx) - 0.01)
    rows = [Row(**row) for row in reports["sensitivity"]["layers"]]
    with (
        stage.trials(exported, ctx) as trial,
        pytest.raises(StageError, match=r"keeps retention 0.9 .*: all have .* not finite or scores below zero"),
    ):
        Keeping(stage, keep, rows, exported, ctx, trial).smallest()


def test_a_layer_that_fewer_bits_do_not_harm_keeps_the_search_going(
    exported: OnnxModel, task: Task, tmp_path: Path
) -> None:
    rows = Sensitivity(schemes_of([8, 2]), "static", ("Conv", "Gemm"), examples=32).of(
        exported, context_of(task, tmp_path / "rows")
    )
    blind = [replace(row, effects=dict.fromkeys(row.effects, 0.0)) for row in rows]  # as if nothing depended on them
    keep = Keep(drop=0.03, widths=(8, 2))
    stage = StaticQuantization(keep=keep)
    ctx = context_of(task, tmp_path / "stage")
    with stage.trials(exported, ctx) as trial:
        model = Keeping(stage, keep, blind, exported, ctx, trial).smallest()
    assert drop(scores(model, task), scores(exported, task)).high <= 0.03


@pytest.mark.parametrize("kind", [DynamicQuantization, WeightQuantization])
def test_what_cannot_be_quantized_ends_no_search(kind: Any, task: Task, tmp_path: Path) -> None:
    """A table of ten columns, whose rows fill no bytes at 2 bits, and one with a row that 8 bits would lose."""

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.words, self.masked = nn.Embedding(64, 10), nn.Embedding(64, 64)
            self.masked.weight.data *= 0.1
            self.masked.weight.data[0] = -1e9
            self.head = nn.Linear(10 + 64, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            numbers = (x.flatten(1) * 40).long().clamp(1, 63)
            return self.head(torch.cat([self.words(numbers).mean(1), self.masked(numbers).mean(1)], 1))

    example = {"input": next(iter(task.train.loader(2))).inputs["input"]}
    model = deploy(TorchModel(Words(), example, Reference(use="none")), tmp_path / "net.onnx")
    reports: dict[str, Any] = {}
    ctx = context_of(task, tmp_path / "stage", report=reports.__setitem__)
    kind(keep=Keep(drop=0.2)).run(model, ctx)
    assert "masked" not in reports["keep"]["widths"]
    assert {"words", "head"} >= {*reports["keep"]["widths"]}


def test_a_node_that_the_user_excludes_stays_in_fp32(exported: OnnxModel, task: Task, tmp_path: Path) -> None:
    proto = onnx.load(exported.path)
    (last,) = (node.name for node in proto.graph.node if "output" in node.output)
    stage = StaticQuantization(exclude=(last,), keep=Keep(drop=0.03, widths=(2, "fp16")))
    model = stage.run(exported, context_of(task, tmp_path / "stage"))
    kinds = [tensor.data_type for tensor in onnx.load(model.path).graph.initializer if len(tensor.dims) > 1]
    assert kinds.count(onnx.TensorProto.FLOAT) == 1


def test_validation_that_varies_and_scores_without_shares_are_refused(exported: OnnxModel, task: Task) -> None:
    varying = replace(task, validation=replace(task.validation, varies=True))
    with pytest.raises(ConfigError, match="are others each time that they are read"):
        refused(StaticQuantization(keep=Keep(drop=0.03)), varying, exported)
    errors = regression(task.train, task.validation, task.test)
    with pytest.raises(ConfigError, match="the scores are errors below zero"):
        refused(StaticQuantization(keep=Keep(retention=0.9)), errors, exported)


def test_a_stop_is_heard_between_two_mixtures(exported: OnnxModel, task: Task, tmp_path: Path) -> None:
    with pytest.raises(Interruption, match="stopped between two mixtures"):
        StaticQuantization(keep=Keep(drop=0.03)).run(
            exported, context_of(task, tmp_path / "stage", interrupted=lambda: True)
        )
