"""`quantize.half` with `keep`, bisected and looked at: beside the mixtures that are smaller."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline.context import Preview
from pipeline.errors import ConfigError, StageError
from pipeline.forms.graph import refill
from pipeline.forms.sandbox.process import DEFAULT
from pipeline.forms.sandbox.session import Outside
from pipeline.measure.accuracy import scores_on_validation
from pipeline.measure.agreement import kl_divergence
from pipeline.measure.statistics.means import drop
from pipeline.model import OnnxModel
from pipeline.task import Task
from stages.quantize.bisect import QuantizationBisection
from stages.quantize.half import HalfPrecision
from stages.quantize.mixed.keep import Keep
from stages.quantize.sensitivity import QuantizationSensitivity
from tests.contexts import context_of

LIMIT = 0.03
KEEP = Keep(drop=LIMIT)


def with_offset(model: OnnxModel, path: Path, offset: float = 1040.0) -> OnnxModel:
    """The network with an offset in the weights of its third layer, taken off behind it: 16 bits hold that alone."""
    proto = onnx.load(model.path)
    change(proto, "6.weight", lambda array: array + offset)
    place, node = reader(proto, "6.weight")
    nodes = [helper.make_node("ReduceSum", [node.input[0], "axes"], ["sum"])]
    nodes += [helper.make_node("Mul", ["sum", "offset"], ["more"])]
    nodes += [helper.make_node("Sub", ["inner", "more"], [node.output[0]])]
    node.output[0] = "inner"
    constants = {"axes": np.array([1]), "offset": np.float32(offset)}
    return saved(proto, place, nodes, constants, path)


def with_scale(model: OnnxModel, path: Path, layer: str, value: str, scale: float) -> OnnxModel:
    """The network with larger weights of a layer, by which a value behind it is divided, once a Flatten has read it."""
    proto = onnx.load(model.path)
    for part in ("weight", "bias"):
        change(proto, f"{layer}.{part}", lambda array: array * scale)
    (place,) = (i for i, node in enumerate(proto.graph.node) if value in node.output)
    proto.graph.node[place].output[0] = f"{value}_large"
    nodes = [helper.make_node("Flatten", [f"{value}_large"], [f"{value}_flat"])]
    nodes += [helper.make_node("Div", [f"{value}_flat", f"{value}_scale"], [value])]
    return saved(proto, place, nodes, {f"{value}_scale": np.float32(scale)}, path)


def change(proto: onnx.ModelProto, name: str, how: Callable[[Any], Any]) -> None:
    (tensor,) = (t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(how(numpy_helper.to_array(tensor)).astype(np.float32), name))


def reader(proto: onnx.ModelProto, name: str) -> tuple[int, onnx.NodeProto]:
    (found,) = ((i, node) for i, node in enumerate(proto.graph.node) if name in node.input)
    return found


def saved(
    proto: onnx.ModelProto, place: int, nodes: list[onnx.NodeProto], constants: dict[str, Any], path: Path
) -> OnnxModel:
    """The network with nodes behind that at a place."""
    every = [*proto.graph.node[: place + 1], *nodes, *proto.graph.node[place + 1 :]]
    refill(proto.graph.node, every)
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
    onnx.save(proto, path)
    return OnnxModel(path, {"input": torch.rand(2, 1, 8, 8)})


def scores(model: OnnxModel, task: Task) -> Any:
    return scores_on_validation(model, task, 64, lambda steps: None).numpy()


def kept(model: OnnxModel, task: Task, folder: Path, **settings: Any) -> tuple[OnnxModel, Mapping[str, Any]]:
    reports: dict[str, Any] = {}
    stage = HalfPrecision(**{"keep": KEEP, **settings})
    return stage.run(model, context_of(task, folder / "stage", report=reports.__setitem__)), reports


@pytest.fixture(scope="module")
def planted(exported: OnnxModel, tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    return with_offset(exported, tmp_path_factory.mktemp("planted") / "net.onnx")


@pytest.mark.parametrize("settings", [{}, {"kind": "bf16"}, {"compute": "half"}], ids=["fp16", "bf16", "computed"])
def test_where_all_halves_hold_all_are_halves(
    settings: dict[str, Any], exported: OnnxModel, task: Task, tmp_path: Path
) -> None:
    model, reports = kept(exported, task, tmp_path, **settings)
    assert {*reports["keep"]["widths"].values()} == {settings.get("kind", "fp16")}
    assert len(reports["keep"]["tried"]) == 1
    plain = HalfPrecision(**settings).run(exported, context_of(task, tmp_path / "plain"))
    assert model.path.read_bytes() == plain.path.read_bytes()


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_it_is_the_smallest_that_holds(kind: Any, planted: OnnxModel, task: Task, tmp_path: Path) -> None:
    model, reports = kept(planted, task, tmp_path, kind=kind)
    assert [layer for layer, width in reports["keep"]["widths"].items() if width == "fp32"] == ["6"]
    assert drop(scores(model, task), scores(planted, task)).high <= LIMIT
    before = scores(planted, task)
    for left in ((), ("0",), ("8",), ("0", "8"), ("6",)):  # all that are smaller, and this one
        one = HalfPrecision(kind=kind, fp32=left).run(planted, context_of(task, tmp_path / "_".join(("left", *left))))
        assert (drop(scores(one, task), before).high <= LIMIT) == (left == ("6",))
    assert reports["keep"]["weights_bytes"] == 2 * (72 + 576 + 512 + 64) + 2 * 512


def test_the_same_file_comes_of_the_settings_that_it_reports(planted: OnnxModel, task: Task, tmp_path: Path) -> None:
    model, reports = kept(planted, task, tmp_path, fp32=("8",))
    assert {*reports["keep"]["settings"]} == {"fp32"}
    stage = HalfPrecision.model_validate(reports["keep"]["settings"])
    again = stage.run(planted, context_of(task, tmp_path / "again"))
    assert again.path.read_bytes() == model.path.read_bytes()
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(model.path).graph.initializer}
    assert kinds["8.weight"] == kinds["6.weight"] == TensorProto.FLOAT


def test_a_weight_that_fp16_does_not_hold_stays_in_fp32(exported: OnnxModel, task: Task, tmp_path: Path) -> None:
    large = with_scale(exported, tmp_path / "net.onnx", "6", "linear", 1e6)
    model, reports = kept(large, task, tmp_path)
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(model.path).graph.initializer}
    assert kinds["6.weight"] == TensorProto.FLOAT
    assert reports["keep"]["widths"] == dict.fromkeys("028", "fp16")
    assert reports["half"]["large"] == ["node_linear"]


def test_answers_that_become_infinite_do_not_hold_and_the_search_goes_on(
    exported: OnnxModel, task: Task, tmp_path: Path
) -> None:
    large = with_scale(exported, tmp_path / "net.onnx", "2", "view", 3e4)
    with pytest.raises(StageError, match="becomes infinite"):
        HalfPrecision(compute="half").run(large, context_of(task, tmp_path / "plain"))
    model, reports = kept(large, task, tmp_path, compute="half")
    assert reports["keep"]["unscored"][0]["counts"] == {"fp16": 4}
    assert len(reports["keep"]["tried"]) >= 1
    widths = reports["keep"]["widths"]
    assert widths["2"] == "fp32"
    assert "fp16" in widths.values()
    assert drop(scores(model, task), scores(large, task)).high <= LIMIT


def test_where_no_answers_are_finite_it_says_so(exported: OnnxModel, task: Task, tmp_path: Path) -> None:
    large = with_scale(exported, tmp_path / "net.onnx", "2", "view", 3e4)
    with pytest.raises(StageError, match=r"fp16, fp32 keeps drop 0.03 .*: all have answers that are not finite"):
        kept(large, task, tmp_path, compute="half", fp32=("0", "6", "8"))


def test_what_none_keeps_is_an_error_with_the_nearest(planted: OnnxModel, task: Task, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"the nearest has drop .*weights of 1.0 kB \(1 of fp16\).*name in `fp32`"):
        kept(planted, task, tmp_path, fp32=("0", "2", "8"))


@pytest.mark.parametrize(("kind", "widths", "message"), [
    ("fp16", (4, "fp32"), "`keep` has the width 4; expected fp16 or fp32"),
    ("fp16", ("bf16", "fp32"), "`keep` has the width bf16; expected fp16 or fp32"),
    ("bf16", ("fp16", "fp32"), "`keep` has the width fp16; expected bf16 or fp32"),
])  # fmt: skip
def test_widths_that_it_has_not_are_refused(
    kind: Any, widths: Any, message: str, exported: OnnxModel, task: Task
) -> None:
    with pytest.raises(ConfigError, match=message):
        list(HalfPrecision(kind=kind, keep=Keep(drop=LIMIT, widths=widths)).check([], Preview(exported, task)))


@pytest.mark.slow
def test_a_file_from_outside_gives_the_same(planted: OnnxModel, task: Task, tmp_path: Path) -> None:
    outside = replace(planted, outside=Outside(limits=DEFAULT))
    ours, theirs = (kept(one, task, tmp_path / str(i))[0] for i, one in enumerate((planted, outside)))
    assert theirs.path.read_bytes() == ours.path.read_bytes()


@pytest.mark.parametrize(("kind", "numpy"), [("fp16", np.float16), ("bf16", None)])
def test_its_sensitivity_is_the_divergence_of_a_file_with_one_weight_in_16_bits(
    kind: Any, numpy: Any, exported: OnnxModel, task: Task, tmp_path: Path
) -> None:
    (entry,) = HalfPrecision(kind=kind).sensitivity()
    assert entry.pop("use") == "quantize.sensitivity"
    reports: dict[str, Any] = {}
    stage = QuantizationSensitivity.model_validate({**entry, "examples": 64})
    stage.run(exported, context_of(task, tmp_path / "stage", report=reports.__setitem__))
    inputs = {"input": torch.stack([task.calibration.dataset[i][0] for i in range(64)])}
    before = exported.predict(inputs)["output"]
    for row in reports["sensitivity"]["layers"]:
        proto = onnx.load(exported.path)
        (weight,) = (t for t in proto.graph.initializer if t.name == f"{row['layer']}.weight")
        array = numpy_helper.to_array(weight).copy()
        rounded = array.astype(np.float16) if numpy else torch.from_numpy(array).bfloat16().float().numpy()
        weight.CopyFrom(numpy_helper.from_array(rounded.astype(np.float32), weight.name))
        onnx.save(proto, tmp_path / "one.onnx")
        after = OnnxModel(tmp_path / "one.onnx", inputs).predict(inputs)["output"]
        divergence = 16 * float(kl_divergence(before / 4, after / 4, task.labelling).mean())
        assert row["effects"] == {kind: pytest.approx(divergence, rel=0.05, abs=1e-8)}


@pytest.mark.parametrize(("compute", "offset"), [("fp32", 1040.0), ("half", 260.0)])
def test_bisect_finds_the_layer_that_costs_and_names_what_keeps_it(
    compute: Any, offset: float, exported: OnnxModel, task: Task, tmp_path: Path
) -> None:
    planted = with_offset(exported, tmp_path / "net.onnx", offset)

    def report_of(folder: Path, **settings: Any) -> Any:
        reports: dict[str, Any] = {}
        stage = QuantizationBisection(method="half", settings={"compute": compute, **settings}, examples=64)
        stage.run(planted, context_of(task, folder, report=reports.__setitem__))
        return reports["bisection"]

    report = report_of(tmp_path / "stage")
    assert "`fp32: [" in report["remedy"]
    assert [layer["layer"] for layer in report["layers"]] == ["6"]
    after = report_of(tmp_path / "again", fp32=report["layers"][0]["nodes"])
    assert after["divergence"] < 0.01 * report["divergence"]
