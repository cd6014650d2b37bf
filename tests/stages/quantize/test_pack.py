"""The whole stage, on small files of each kind of quantization."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnxruntime.capi.onnxruntime_inference_collection import InferenceSession

from pipeline.context import Preview
from pipeline.errors import ConfigError, StageError
from pipeline.fit import check_chain
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.forms.packed import is_packed, unpacked
from pipeline.forms.sandbox.session import Outside
from pipeline.measure.cost import counted_macs, onnx_params
from pipeline.measure.size import layers, payload_bytes, size_bytes
from pipeline.model import OnnxModel, TorchModel
from pipeline.stage import Stage
from pipeline.task import Split
from stages.export.onnx import OnnxExport
from stages.quantize import pack as stage_file
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.optimum import OptimumQuantization
from stages.quantize.pack import WeightPacking
from stages.quantize.packing.graph import weights_of
from stages.quantize.packing.proof import operators
from tests.contexts import preview_of, reporting_context
from tests.graphs import node
from tests.quantizing import DYNAMIC, STATIC, draw, images, old


@pytest.fixture(autouse=True)
def no_loading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No processes that load the files, but for the test that looks at what they tell."""
    if "measured" not in request.node.name:
        monkeypatch.setattr(stage_file, "loading", lambda *_: {})


LSTM = DynamicQuantization(reduce_range=True, operators=("LSTM", "MatMul"))
Data = Mapping[str, torch.Tensor]


def convolutions() -> tuple[onnx.ModelProto, Data]:
    """Convolutions with biases, an addition, a linear layer: QLinearConv, QLinearAdd and QGemm."""
    nodes = [
        node("Conv", ["x", "k", "a"], ["c"], pads=[1] * 4), node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "l", "b"], ["d"], pads=[1] * 4), node("Add", ["d", "r"], ["s"]),
        node("GlobalAveragePool", ["s"], ["p"]), node("Flatten", ["p"], ["f"]), node("Gemm", ["f", "w", "v"], ["y"]),
    ]  # fmt: skip
    weights = {"k": draw(16, 1, 3, 3), "a": draw(16), "l": draw(16, 16, 3, 3), "b": draw(16)}
    weights |= {"w": draw(16, 4), "v": draw(4)}
    return old(nodes, {"x": ["n", 1, 8, 8]}, {"y": ["n", 4]}, weights=weights), {"x": images(1, 8, 8)}


def lookup() -> tuple[onnx.ModelProto, Data]:
    """A table and a linear layer: Gather of integers and MatMulInteger."""
    nodes = [
        node("Gather", ["table", "ids"], ["e"]), node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        node("MatMul", ["m", "head"], ["y"]),
    ]  # fmt: skip
    weights = {"table": draw(200, 16), "head": draw(16, 50)}
    ids = torch.randint(0, 200, (64, 6), generator=torch.Generator().manual_seed(0))
    return old(nodes, {"ids": (TensorProto.INT64, ["n", 6])}, {"y": ["n", 50]}, weights=weights), {"ids": ids}


def recurrent() -> tuple[onnx.ModelProto, Data]:
    """An LSTM: DynamicQuantizeLSTM."""
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("LSTM", ["t", "w", "r", "b"], ["", "h"], hidden_size=16),
        node("Squeeze", ["h", "zero"], ["s"]), node("MatMul", ["s", "v"], ["y"]),
    ]  # fmt: skip
    weights = {"w": draw(1, 64, 8), "r": draw(1, 64, 16), "b": draw(1, 128), "v": draw(16, 4), "zero": np.array([0])}
    return old(nodes, {"x": ["n", 5, 8]}, {"y": ["n", 4]}, weights=weights), {"x": images(5, 8)}


KINDS: dict[str, tuple[Callable[[], tuple[onnx.ModelProto, Data]], Stage, set[str]]] = {
    "static": (convolutions, STATIC, {"QLinearConv", "QLinearAdd", "QGemm"}),
    "dynamic": (lookup, DYNAMIC, {"DynamicQuantizeMatMul", "Gather"}),
    "lstm": (recurrent, LSTM, {"DynamicQuantizeLSTM"}),
}
BOOK = np.array([-60, -44, -31, -22, -15, -9, -4, -1, 0, 2, 5, 10, 16, 24, 35, 61])
VALUES: dict[str, Callable[[Any, Any], Any]] = {
    "int4": lambda rng, shape: rng.integers(-7, 8, shape),
    "planes3": lambda rng, shape: rng.integers(-4, 4, shape),
    "planes2": lambda rng, shape: rng.integers(-2, 2, shape),
    "ternary": lambda rng, shape: rng.integers(-1, 2, shape),
    "codebook4": lambda rng, shape: rng.choice(BOOK, shape),
    "sparse": lambda rng, shape: rng.integers(-63, 64, shape) * (rng.random(shape) < 0.1),
}


def quantized(kind: str, folder: Path, values: str | None = None) -> tuple[OnnxModel, Split]:
    """A small quantized file, its integers of 7 bits or of fewer values, and the data that it was made with."""
    make, stage, _ = KINDS[kind]
    proto, data = make()
    onnx.helper.set_model_props(proto, {"names": "cat, dog"})
    onnx.save(proto, folder / "net.onnx")
    rows = [({name: value[i] for name, value in data.items()}, 0) for i in range(len(next(iter(data.values()))))]
    split = Split(rows)  # type: ignore[arg-type]
    example = {name: value[:2] for name, value in data.items()}
    ctx, _ = reporting_context(folder / "quantize", split)
    model: OnnxModel = stage.run(OnnxModel(folder / "net.onnx", example), ctx)
    if values:
        rng = np.random.default_rng(0)
        replace_weights(model.path, lambda shape: VALUES[values](rng, shape))
    return model, split


def replace_weights(path: Path, draw: Callable[[Any], Any]) -> None:
    """Put other integers, drawn for a shape, in the place of a file's weights."""
    proto = onnx.load(path)
    names = {weight.name for weight in weights_of(proto.graph)}
    for tensor in (tensor for tensor in proto.graph.initializer if tensor.name in names):
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        tensor.CopyFrom(numpy_helper.from_array(draw([*tensor.dims]).astype(dtype), tensor.name))
    onnx.save(proto, path)


def pack(model: OnnxModel, split: Split, folder: Path, **settings: Any) -> tuple[OnnxModel, dict[str, Any]]:
    ctx, reports = reporting_context(folder / "pack", split)
    return WeightPacking(**settings).run(model, ctx), reports["packing"]


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_equal_and_the_same_kernels_run(kind: str, values: str, tmp_path: Path) -> None:
    model, split = quantized(kind, tmp_path, values)
    packed, report = pack(model, split, tmp_path)
    batch = next(iter(split.loader(64))).inputs
    for name, value in model.predict(batch).items():
        assert value.numpy().tobytes() == packed.predict(batch)[name].numpy().tobytes()
    assert operators(packed) == operators(model)
    assert set(operators(packed)) >= KINDS[kind][2]
    assert [entry.value for entry in onnx.load(packed.path).metadata_props] == ["cat, dog"]
    assert list(packed.path.parent.iterdir()) == [packed.path]
    assert values in {row["encoding"] for row in report["tensors"]}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_measured_as_the_file_before(kind: str, tmp_path: Path) -> None:
    model, split = quantized(kind, tmp_path, "ternary")
    packed, report = pack(model, split, tmp_path)
    assert onnx_params(packed) == onnx_params(model)
    assert counted_macs(packed) == counted_macs(model)
    assert size_bytes(packed) < size_bytes(model)
    assert payload_bytes(packed) < payload_bytes(model)
    assert sum(row.bytes for row in layers(packed.path)) == payload_bytes(packed)
    assert "packed weights" in {row.name for row in layers(packed.path)}
    assert report["bytes"] == {"before": size_bytes(model), "after": size_bytes(packed)}
    assert report["graph_bytes"] + sum(row["bytes"] for row in report["tensors"]) == size_bytes(packed)
    assert {row["name"] for row in report["tensors"] if row["encoding"] == "ternary"}
    assert all(report[key][side] > 0 for key in ("load_ms", "peak_bytes") for side in ("before", "after"))


@pytest.mark.parametrize("values", VALUES)
def test_what_numpy_decodes_are_the_weights_before(values: str, tmp_path: Path) -> None:
    model, split = quantized("static", tmp_path, values)
    packed, _ = pack(model, split, tmp_path)
    assert is_packed(onnx.load(packed.path).graph)
    protos = onnx.load(model.path), unpacked(packed.path)
    before, after = (sorted(w.integers.tobytes() for w in weights_of(proto.graph)) for proto in protos)
    assert before == after
    assert not is_packed(protos[1].graph)
    onnx.save(protos[1], tmp_path / "unpacked.onnx")
    batch = next(iter(split.loader(64))).inputs
    plain = OnnxModel(tmp_path / "unpacked.onnx", model.example)
    assert torch.equal(model.predict(batch)["y"], plain.predict(batch)["y"])


def test_integers_of_4_bits_are_for_runtimes_that_load_them(tmp_path: Path) -> None:
    model, split = quantized("static", tmp_path, "int4")
    newest, _ = pack(model, split, tmp_path / "newest")
    old_enough, report = pack(model, split, tmp_path, opset=17)
    opsets = [onnx.load(one.path).opset_import[0].version for one in (newest, old_enough)]
    assert opsets == [21, 17]
    assert "codebook4" in {row["encoding"] for row in report["tensors"]}


def test_it_makes_the_same_file_each_time(tmp_path: Path) -> None:
    model, split = quantized("static", tmp_path, "sparse")
    files = [pack(model, split, tmp_path / name)[0].path.read_bytes() for name in "ab"]
    assert files[0] == files[1]


def test_functions_make_it_smaller(tmp_path: Path) -> None:
    model, split = quantized("static", tmp_path, "ternary")
    sizes = [pack(model, split, tmp_path / str(on), functions=on)[1]["bytes"]["after"] for on in (False, True)]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_file_from_outside_is_packed_without_a_session_here(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, split = quantized(kind, tmp_path, "ternary")
    ours = pack(model, split, tmp_path / "ours")[0].path.read_bytes()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a session is made in this process")

    monkeypatch.setattr(InferenceSession, "__init__", refuse)
    packed, _ = pack(replace(model, outside=Outside()), split, tmp_path)
    assert packed.path.read_bytes() == ours
    assert packed.outside == Outside()


def packs(model: OnnxModel, split: Split, folder: Path, message: str, **settings: Any) -> None:
    with pytest.raises(StageError, match=message):
        pack(model, split, folder, **settings)
    assert not [*(folder / "pack").glob("*")]


def test_what_cannot_be_packed_is_refused(tmp_path: Path) -> None:
    model, split = quantized("static", tmp_path, "ternary")
    packed, _ = pack(model, split, tmp_path / "first")
    packs(packed, split, tmp_path, "packed already")
    packs(OnnxModel(tmp_path / "net.onnx", model.example), split, tmp_path, "nothing in it is quantized")
    packs(model, split, tmp_path, "it has opset 17; expected at most 15", opset=15)
    packs(model, Split([]), tmp_path, "calibration split is empty")  # type: ignore[arg-type]


def test_nan_in_the_calibration_data_is_named(tmp_path: Path) -> None:
    model, split = quantized("static", tmp_path, "ternary")
    rows = [split[i] for i in range(len(split))]
    rows[3] = ({"x": torch.full((1, 8, 8), torch.nan)}, 0)
    packs(model, Split(rows), tmp_path, "`x` of calibration example 3 has NaN")  # type: ignore[arg-type]


def test_a_file_that_is_no_smaller_is_an_error(tmp_path: Path) -> None:
    model, split = quantized("dynamic", tmp_path)
    replace_weights(model.path, lambda shape: np.random.default_rng(0).integers(-128, 128, shape))
    slim, report = pack(model, split, tmp_path / "first")
    assert {row["encoding"] for row in report["tensors"]} == {"int8", "fp32"}
    packs(slim, split, tmp_path, "packed it has .* before; expected fewer bytes")


def test_a_file_whose_outputs_differ_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, split = quantized("static", tmp_path, "ternary")
    real = OnnxModel.predict

    def predict(self: OnnxModel, inputs: Any) -> Any:
        outputs = real(self, inputs)
        return outputs if self.path == model.path else {name: value + 1e-6 for name, value in outputs.items()}

    monkeypatch.setattr(OnnxModel, "predict", predict)
    packs(model, split, tmp_path, "does not do what the file does: its output `y` differs for batch 0")


def test_weights_beside_the_graph_are_packed(tmp_path: Path) -> None:
    model, split = quantized("dynamic", tmp_path, "ternary")
    place = {"save_as_external_data": True, "location": "all.data", "size_threshold": 0}
    (tmp_path / "beside").mkdir()
    onnx.save(onnx.load(model.path), tmp_path / "beside" / "net.onnx", **place)
    beside = replace(model, path=tmp_path / "beside" / "net.onnx")
    assert not [*WeightPacking().check([], preview_of(beside))]
    packed, report = pack(beside, split, tmp_path)
    assert report["bytes"]["before"] == size_bytes(beside) > size_bytes(packed)
    assert packed.files() == [packed.path]


def refuses(message: str, stage: Stage, before: list[Stage], preview: Preview) -> None:
    with pytest.raises(ConfigError, match=message):
        list(stage.check(before, preview))


def test_the_files_of_an_encoder_decoder_are_not_packed() -> None:
    chain = [("stages[0] (quantize.optimum)", OptimumQuantization(target="avx2")), ("stages[1]", WeightPacking())]
    with pytest.raises(ConfigError, match=r"given an encoder-decoder.*Leave it out, or use export\.onnx in place"):
        check_chain(chain, Seq2SeqOnnx)


def test_a_chain_has_one_packing_behind_what_quantizes(tmp_path: Path) -> None:
    torch_model = preview_of(TorchModel.__new__(TorchModel))
    refuses("no earlier stage quantizes.*Put quantize.static", WeightPacking(), [OnnxExport()], torch_model)
    refuses("packs already", WeightPacking(), [STATIC, WeightPacking()], torch_model)
    assert not [*WeightPacking().check([OnnxExport(), STATIC], torch_model)]
    model, split = quantized("static", tmp_path, "ternary")
    before = preview_of(replace(model, path=tmp_path / "net.onnx"))
    refuses("quantizes already", STATIC, [WeightPacking()], before)
    refuses("nothing in it is quantized", WeightPacking(), [], before)
    assert not [*WeightPacking().check([], preview_of(model))]
    packed, _ = pack(model, split, tmp_path)
    refuses("packed already", WeightPacking(), [], preview_of(packed))
    refuses("it has opset 17", WeightPacking(opset=13), [], preview_of(model))
