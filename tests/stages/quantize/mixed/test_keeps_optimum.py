"""`quantize.optimum` with `keep`, and bisected: beside the mixtures that are smaller."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from pipeline.context import Preview
from pipeline.errors import ConfigError, StageError
from pipeline.measure.accuracy import scores_on_validation
from pipeline.measure.statistics.means import drop
from pipeline.model import OnnxModel
from pipeline.task import Task
from stages.export.seq2seq import Seq2SeqExport
from stages.quantize.bisect import QuantizationBisection
from stages.quantize.mixed.keep import Keep
from stages.quantize.optimum import OptimumQuantization
from stages.quantize.quantizing.assigned import Assigned
from tests.contexts import context_of, quadrants
from tests.graphs import graph, node

pytestmark = pytest.mark.optimum
LIMIT, OFFSET = 0.03, 2000.0
KEEP = Keep(drop=LIMIT, widths=(8, "fp32"))


@pytest.fixture(scope="module")
def planted(task: Task, tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    """Linear layers; the second has an offset, taken off behind it, beside which 8 and 16 bits lose its weights."""
    torch.manual_seed(0)
    layers = [nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 4)]
    module = nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    images, labels = quadrants(512, 0, 0.2).tensors
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(60):
        loss = nn.functional.cross_entropy(module(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights: dict[str, Any] = {"axes": np.array([1]), "offset": np.float32(OFFSET)}
    for name, layer in zip(("first", "middle", "last"), layers, strict=True):
        weights |= {f"{name}.weight": layer.weight.detach().numpy(), f"{name}.bias": layer.bias.detach().numpy()}
    weights["middle.weight"] = weights["middle.weight"] + np.float32(OFFSET)
    nodes = [
        node("Flatten", ["input"], ["x"]),
        node("Gemm", ["x", "first.weight", "first.bias"], ["a"], "one", transB=1),
        node("Relu", ["a"], ["b"]),
        node("Gemm", ["b", "middle.weight", "middle.bias"], ["c"], "two", transB=1),
        node("ReduceSum", ["b", "axes"], ["sum"]),
        node("Mul", ["sum", "offset"], ["more"]),
        node("Sub", ["c", "more"], ["d"]),
        node("Relu", ["d"], ["e"]),
        node("Gemm", ["e", "last.weight", "last.bias"], ["output"], "three", transB=1),
    ]
    path = tmp_path_factory.mktemp("planted") / "net.onnx"
    onnx.save(graph(nodes, {"input": ["n", 1, 8, 8]}, {"output": ["n", 4]}, weights), path)
    return OnnxModel(path, {"input": images[:2]})


def scores(model: OnnxModel, task: Task) -> Any:
    return scores_on_validation(model, task, 1, lambda steps: None).numpy()  # the range of each call is of a batch


def run(stage: OptimumQuantization, model: OnnxModel, task: Task, folder: Path) -> tuple[Any, Mapping[str, Any]]:
    reports: dict[str, Any] = {}
    return stage.run(model, context_of(task, folder, report=reports.__setitem__)), reports


@pytest.mark.parametrize("target", ["avx2", pytest.param("avx512_vnni", marks=pytest.mark.slow)])
def test_it_is_the_smallest_that_holds(target: Any, planted: OnnxModel, task: Task, tmp_path: Path) -> None:
    _, reports = run(OptimumQuantization(target=target, keep=KEEP), planted, task, tmp_path / "stage")
    assert reports["keep"]["widths"] == {"first": 8, "middle": "fp32", "last": 8}
    nodes, before = {"first": "one", "middle": "two", "last": "three"}, scores(planted, task)
    for left in ((), ("last",), ("middle",)):  # the two that are smaller, and this one
        exclude = [nodes[layer] for layer in left]
        one, _ = run(OptimumQuantization(target=target, exclude=exclude), planted, task, tmp_path / "_".join(left))
        kinds = [t.data_type for t in onnx.load(one.path).graph.initializer if len(t.dims) > 1]
        assert kinds.count(TensorProto.FLOAT) == len(left)
        assert (drop(scores(one, task), before).high <= LIMIT) == (left == ("middle",))


def test_the_same_file_comes_of_the_settings_that_it_reports(planted: OnnxModel, task: Task, tmp_path: Path) -> None:
    model, reports = run(OptimumQuantization(target="avx2", keep=KEEP), planted, task, tmp_path / "stage")
    assert {*reports["keep"]["settings"]} == {"exclude"}
    stage = OptimumQuantization.model_validate({"target": "avx2", **reports["keep"]["settings"]})
    again, _ = run(stage, planted, task, tmp_path / "again")
    assert again.path.read_bytes() == model.path.read_bytes()


def test_layers_that_bear_no_integers_are_halves(planted: OnnxModel, task: Task, tmp_path: Path) -> None:
    keep = Keep(drop=0.9, widths=(8, "fp16", "fp32"))
    stage = OptimumQuantization(target="avx2", keep=keep)
    with stage.trials(planted, context_of(task, tmp_path)) as trial:
        rows = stage.measured((8,), planted, context_of(task, tmp_path / "rows"), 16)
        halves = [name for row in rows[:2] for name in row.nodes]
        model = trial(context_of(task, tmp_path / "one"), Assigned(halves=halves))
    kinds = [t.data_type for t in onnx.load(model.path).graph.initializer if len(t.dims) > 1]
    assert sorted(kinds) == sorted([TensorProto.FLOAT16, TensorProto.FLOAT16, TensorProto.UINT8])


def test_what_none_keeps_is_an_error_with_the_nearest(planted: OnnxModel, task: Task, tmp_path: Path) -> None:
    keep = Keep(drop=LIMIT, widths=(8, "fp16"))
    with pytest.raises(StageError, match=r"no mixture of 8, fp16 keeps drop 0.03 .*the nearest has drop"):
        run(OptimumQuantization(target="avx2", keep=keep), planted, task, tmp_path)


def test_bisect_finds_the_layer_that_costs_and_names_what_keeps_it(
    planted: OnnxModel, task: Task, tmp_path: Path
) -> None:
    def report_of(folder: Path, **settings: Any) -> Any:
        reports: dict[str, Any] = {}
        stage = QuantizationBisection(method="optimum", settings={"target": "avx2", **settings}, examples=64)
        stage.run(planted, context_of(task, folder, report=reports.__setitem__))
        return reports["bisection"]

    report = report_of(tmp_path / "stage")
    assert "`exclude: [" in report["remedy"]
    assert [layer["layer"] for layer in report["layers"]] == ["middle"]
    after = report_of(tmp_path / "again", exclude=report["layers"][0]["nodes"])
    assert after["divergence"] < 0.01 * report["divergence"]


def test_its_sensitivity_is_that_of_products_in_8_bits() -> None:
    (entry,) = OptimumQuantization(operators=("MatMul",), exclude=("one",)).sensitivity()
    assert (entry["activations"], entry["widths"], entry["exclude"]) == ("dynamic", [8], ["one"])
    assert {*entry["operators"]} == {"MatMul", "Gemm"}  # type: ignore[misc]  # of a Gemm it makes a MatMul


@pytest.mark.parametrize("setting", [{"keep": KEEP}, {"exclude": ("a",)}])
def test_an_encoder_decoder_is_refused_before_work(setting: Any, planted: OnnxModel, task: Task) -> None:
    stage, preview = OptimumQuantization(target="avx2", **setting), Preview(planted, task)
    assert [*stage.check([], preview)] == []
    with pytest.raises(ConfigError, match=f"`{next(iter(setting))}` is given for an encoder-decoder.*three graphs"):
        list(stage.check([Seq2SeqExport()], preview))


@pytest.mark.parametrize("width", [4, "bf16"])
def test_widths_that_it_has_not_are_refused(width: Any, planted: OnnxModel, task: Task) -> None:
    stage = OptimumQuantization(target="avx2", keep=Keep(drop=LIMIT, widths=(8, width)))
    with pytest.raises(ConfigError, match=f"the width {width}; expected 8, fp16 or fp32"):
        list(stage.check([], Preview(planted, task)))
