"""Halves: half the bytes, outputs close to fp32's, and nothing that becomes infinite without a word."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pipeline.errors import ConfigError, ForeignError, StageError
from pipeline.forms.sandbox.process import DEFAULT
from pipeline.forms.sandbox.session import Outside
from pipeline.measure.cost import onnx_macs, onnx_params
from pipeline.measure.size import layers, size_bytes
from pipeline.model import OnnxModel
from pipeline.task import Split
from stages.quantize.half import HalfPrecision
from stages.quantize.pack import WeightPacking
from stages.quantize.packing.proof import operators
from stages.quantize.static import StaticQuantization
from tests.aliases import Patch
from tests.contexts import preview_of, reporting_context
from tests.graphs import graph, node
from tests.quantizing import draw, images

DATA = images(3, 8, 8)


def network(scale: float = 1.0) -> onnx.ModelProto:
    """A convolution, a linear layer with a mask, a head: (N, 3, 8, 8) -> (N, 4)."""
    nodes = [
        node("Conv", ["input", "conv.weight", "conv.bias"], ["c"], "conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Flatten", ["r"], ["f"]),
        node("Gemm", ["f", "middle.weight"], ["m"], "middle", transB=1),
        node("Where", ["keep", "m", "mask"], ["w"], "hide"),
        node("Softmax", ["w"], ["s"], "attend"),
        node("Gemm", ["s", "head.weight", "head.bias"], ["output"], "last", transB=1),
    ]
    weights: Any = {"conv.weight": draw(8, 3, 3, 3), "conv.bias": draw(8), "middle.weight": draw(40, 512) * scale}
    weights |= {"head.weight": draw(4, 40), "head.bias": draw(4), "mask": np.float32(-3.4e38)}
    weights |= {"keep": np.arange(40) % 5 != 0}
    return graph(nodes, {"input": ["n", 3, 8, 8]}, {"output": ["n", 4]}, weights)


class Result:
    """What the stage makes of a graph, and what it says."""

    def __init__(self, folder: Path, stage: HalfPrecision, proto: onnx.ModelProto, outside: Outside | None = None):
        onnx.save(proto, folder / "net.onnx")
        self.warnings: list[str] = []
        ctx, reports = reporting_context(folder / "stage", Split([(x, 0) for x in DATA]), warn=self.warnings.append)  # type: ignore[arg-type]
        self.before = OnnxModel(folder / "net.onnx", {"input": DATA[:2]}, outside=outside)
        self.model = stage.run(self.before, ctx)
        self.report = reports["half"]
        self.graph = onnx.load(self.model.path).graph
        a, b = (m.predict({"input": DATA})["output"] for m in (self.before, self.model))
        self.error = float((a - b).abs().max() / (a.max() - a.min()))


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Result]:
    return lambda *args, **more: Result(tmp_path, *args, **more)


@pytest.mark.parametrize(("settings", "close"), [
    ({}, 1e-3), ({"kind": "bf16"}, 1e-2), ({"compute": "half"}, 5e-3),
])  # fmt: skip
def test_half_the_bytes_and_close(settings: dict[str, Any], close: float, made: Callable[..., Result]) -> None:
    result = made(HalfPrecision(**settings), network())
    assert result.error < close
    assert result.report["difference"] < close
    assert size_bytes(result.model) < 0.53 * size_bytes(result.before)
    assert onnx_params(result.model) == onnx_params(result.before)
    assert onnx_macs(result.model) == onnx_macs(result.before)
    ends = [value.type.tensor_type.elem_type for value in (*result.graph.input, *result.graph.output)]
    assert ends == [TensorProto.FLOAT] * 2
    assert result.warnings == []
    assert {"conv", "middle"} <= {layer.name for layer in layers(result.model.path)}


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_the_runtime_runs_the_operators_of_fp32(kind: Any, made: Callable[..., Result]) -> None:
    result = made(HalfPrecision(kind=kind), network())
    assert operators(result.model) == operators(result.before)


def test_what_is_named_stays_in_fp32(made: Callable[..., Result]) -> None:
    for keys, left in ((("middle",), "middle.weight"), (("Conv",), "conv.weight"), (("last",), "head.weight")):
        kinds = {t.name: t.data_type for t in made(HalfPrecision(fp32=keys), network()).graph.initializer}
        assert kinds[left] == TensorProto.FLOAT
        assert list(kinds.values()).count(TensorProto.FLOAT16) == 2


def test_masks_stay_in_fp32_where_fp16_is_computed_in(made: Callable[..., Result]) -> None:
    result = made(HalfPrecision(compute="half", fp32=("last",)), network())
    assert result.report["large"] == ["hide", "attend"]
    assert result.report["fp32"] == ["last"]
    assert Counter(n.op_type for n in result.graph.node)["Cast"] > 0


def test_a_weight_that_fp16_does_not_hold_is_an_error(made: Callable[..., Result]) -> None:
    message = r"net\.onnx: .*the weight `middle\.weight` has \d+ numbers beyond 65504, which fp16 does not hold"
    for compute in ("fp32", "half"):
        with pytest.raises(StageError, match=message):
            made(HalfPrecision(compute=compute), network(scale=1e6))
    assert made(HalfPrecision(kind="bf16"), network(scale=1e6)).report["layers"]
    assert made(HalfPrecision(fp32=("middle",)), network(scale=1e6)).report["layers"]


def test_a_weight_that_vanishes_is_told(made: Callable[..., Result]) -> None:
    result = made(HalfPrecision(), network(scale=1e-8))
    assert "too small for fp16 become zero" in result.warnings[0]
    assert "`middle.weight`" in result.warnings[0]


def test_a_runtime_that_crashes_is_an_error(made: Callable[..., Result], monkeypatch: Patch) -> None:
    predict = OnnxModel.predict

    def crash(model: OnnxModel, inputs: Any) -> Any:
        if model.outside and model.path.name == "half.onnx":
            raise ForeignError("the process that runs it was killed by SIGSEGV")
        return predict(model, inputs)

    monkeypatch.setattr(OnnxModel, "predict", crash)
    with pytest.raises(StageError, match=r"does not run the file here: .*SIGSEGV\. Leave compute at fp32"):
        made(HalfPrecision(compute="half"), network())
    assert made(HalfPrecision(), network()).report["layers"]


def test_far_outputs_are_told(made: Callable[..., Result]) -> None:
    """Of weights about 1000, where bf16 has steps of 4, most of what remains once 1000 is taken off is lost."""
    nodes = [node("MatMul", ["input", name], [value]) for name, value in (("w", "a"), ("offset", "b"))]
    weights = {"w": 1000 + draw(8, 8), "offset": np.full((8, 8), 1000.0)}
    ends = {"input": ["n", 3, 8, 8]}, {"output": ["n", 3, 8, 8]}
    result = made(HalfPrecision(kind="bf16"), graph([*nodes, node("Sub", ["a", "b"], ["output"])], *ends, weights))
    far = result.report["difference"]
    assert min(far, result.error) > 0.1
    assert result.warnings == [f"in bf16 outputs are up to {far:.1%} of their range from fp32's"]


def test_a_file_from_outside_gives_the_same_file(made: Callable[..., Result]) -> None:
    proto = network()
    for compute in ("fp32", "half"):
        ours = made(HalfPrecision(compute=compute), proto).model.path.read_bytes()
        theirs = made(HalfPrecision(compute=compute), proto, outside=Outside(limits=DEFAULT))
        assert theirs.model.path.read_bytes() == ours


@pytest.mark.parametrize(("keys", "message"), [
    (("midle",), "`fp32` has `midle`, and no operator, node or layer has that name; did you mean `middle`"),
    (("Conv", "Gemm"), "no weight would become a half.*float32"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_work(keys: tuple[str, ...], message: str, tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match=message):
        list(HalfPrecision(fp32=keys).reach(OnnxModel(tmp_path / "net.onnx", {})))


def test_what_becomes_halves_is_told_before_work(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "net.onnx")
    (note,) = HalfPrecision(fp32=("middle",)).reach(OnnxModel(tmp_path / "net.onnx", {}))
    assert "stores 2 weights, 1.5 kB in fp32, in 16 bits; `middle.weight` stays in fp32" in str(note)


@pytest.mark.parametrize(
    ("key", "left"), [("Conv", "conv.weight"), ("middle", "middle.weight"), ("Gemm_6", "head.weight")]
)
def test_nodes_without_names_are_called_before_work_as_in_the_run(
    key: str, left: str, made: Callable[..., Result], tmp_path: Path
) -> None:
    proto = network()
    for one in proto.graph.node:
        one.name = ""
    onnx.save(proto, tmp_path / "net.onnx")
    (note,) = HalfPrecision(fp32=(key,)).reach(OnnxModel(tmp_path / "net.onnx", {}))
    assert f"`{left}` stays in fp32" in note
    kinds = {t.name: t.data_type for t in made(HalfPrecision(fp32=(key,)), proto).graph.initializer}
    assert [name for name, kind in kinds.items() if kind == TensorProto.FLOAT and "weight" in name] == [left]


def test_check_refuses_and_warns() -> None:
    preview = preview_of(OnnxModel(Path("x.onnx"), {}), 512)
    assert list(HalfPrecision().check([], preview)) == []
    assert "in fp32 on CPUs" in next(iter(HalfPrecision(compute="half").check([], preview)))
    with pytest.raises(ConfigError, match="for which ONNX Runtime has no kernels"):
        list(HalfPrecision(kind="bf16", compute="half").check([], preview))
    with pytest.raises(ConfigError, match="an earlier stage quantizes already"):
        list(StaticQuantization().check([HalfPrecision()], preview))
    with pytest.raises(ConfigError, match=r"quantize\.half leaves no integers"):
        list(WeightPacking().check([HalfPrecision()], preview))


def test_bf16_needs_opset_13(made: Callable[..., Result]) -> None:
    ends = {"input": ["n", 3, 8, 8]}, {"output": ["n", 3, 8, 8]}
    proto = graph([node("MatMul", ["input", "w"], ["output"])], *ends, {"w": draw(8, 8)})
    proto.opset_import[0].version = 11
    proto.ir_version = 6
    with pytest.raises(StageError, match=r"its opset 11 has no bf16\. Export it with opset 13"):
        made(HalfPrecision(kind="bf16"), proto)
    assert made(HalfPrecision(), proto).error < 1e-3


def test_a_value_that_several_nodes_read_in_fp32_is_cast_once(made: Callable[..., Result]) -> None:
    nodes = [node("MatMul", ["input", "w"], ["h"]), node("Exp", ["h"], ["a"]), node("Neg", ["h"], ["b"])]
    nodes += [node("Add", ["a", "b"], ["output"])]
    ends = {"input": ["n", 3, 8, 8]}, {"output": ["n", 3, 8, 8]}
    result = made(HalfPrecision(compute="half", fp32=("Exp", "Neg")), graph(nodes, *ends, {"w": draw(8, 8)}))
    assert result.error < 5e-3
    assert result.report["fp32"] == ["Exp_1", "Neg_2"]
