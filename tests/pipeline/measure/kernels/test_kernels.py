from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi.onnxruntime_inference_collection import InferenceSession

from pipeline.errors import ConfigError, ForeignError, StageError
from pipeline.forms.sandbox.process import GIB, Limits
from pipeline.forms.sandbox.session import Outside
from pipeline.measure.cost import onnx_macs
from pipeline.measure.kernels.kernels import is_another_graph, kernels_of
from pipeline.model import OnnxModel
from tests.qdq import IMAGE, TOKENS, Builder


def network(folder: Path, name: str = "net", seed: int = 0, quantized: bool = False, width: int = 16) -> OnnxModel:
    """Two convolutions, in floats or with QuantizeLinear and DequantizeLinear."""
    builder = Builder()
    builder.rng = np.random.default_rng(seed)
    value = "x"
    for inputs in (3, width):
        if quantized:
            value = builder.conv(builder.qdq(value), inputs, width)
        else:
            value = builder.op("Conv", value, builder.floats(width, inputs, 3, 3), pads=[1] * 4)
    return builder.model(folder, builder.qdq(value) if quantized else value, IMAGE, name)


@pytest.fixture
def no_session_here() -> Iterator[None]:
    with patch.object(InferenceSession, "__init__", side_effect=AssertionError("a session in this process")):
        yield


def test_macs_of_integers_are_those_that_are_counted(tmp_path: Path) -> None:
    before, after = network(tmp_path, "before"), network(tmp_path, "after", quantized=True)
    kernels = kernels_of(before, after)
    integers = [row for row in kernels.operators if row.integer]
    assert [(row.operator, row.count) for row in integers] == [("QLinearConv", 2)]
    assert integers[0].macs == onnx_macs(after) == onnx_macs(before)
    assert kernels.integer_macs == 1.0
    assert sum(row.time_share or 0 for row in kernels.operators) == pytest.approx(1, abs=0.01)
    assert kernels.ratio
    assert kernels.ratio.low <= kernels.ratio.value <= kernels.ratio.high


def test_a_file_of_floats_has_no_macs_in_integers(tmp_path: Path) -> None:
    kernels = kernels_of(network(tmp_path, "wide", width=32), network(tmp_path, "narrow"))
    assert kernels.integer_macs == 0.0
    assert kernels.floats == []  # nothing fell back


def test_training_alone_makes_no_other_graph(tmp_path: Path) -> None:
    net = network(tmp_path)
    assert not is_another_graph(net, network(tmp_path, "trained", seed=1))
    assert is_another_graph(net, network(tmp_path, "narrow", width=8))
    assert is_another_graph(net, network(tmp_path, "quantized", quantized=True))


def test_what_stays_in_floats_is_told_with_its_reason(tmp_path: Path) -> None:
    builder = Builder()
    value = builder.op("Conv", builder.qdq(builder.conv(builder.qdq("x"), 3, 16)), builder.floats(16, 16, 3, 3))
    value = builder.op("ConvTranspose", value, builder.floats(16, 4, 2, 2))
    model = builder.model(tmp_path, value, IMAGE)
    reasons = {row.operator: row.why for row in kernels_of(model, model).floats}
    assert "its input is quantized and its weight is not" in reasons["Conv"]
    assert "no kernel of integers for ConvTranspose" in reasons["ConvTranspose"]


def test_layers_are_called_as_in_the_file_before(tmp_path: Path) -> None:
    before, after = network(tmp_path, "before"), network(tmp_path, "after", quantized=True)
    proto = onnx.load(before.path)
    names = {tensor.name: f"body.{i}.weight" for i, tensor in enumerate(proto.graph.initializer)}
    for tensor in proto.graph.initializer:
        tensor.name = names[tensor.name]
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    onnx.save(proto, before.path)
    weights = onnx.load(after.path)  # all that is quantized is weights of uint8
    for tensor in weights.graph.initializer:
        if tensor.data_type == TensorProto.INT8:
            array = (onnx.numpy_helper.to_array(tensor).astype(np.int16) + 128).astype(np.uint8)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(weights, after.path)
    (alarm,) = [one for one in kernels_of(before, after).alarms if one.pattern == "uint8 weights"]
    assert alarm.nodes == ["body.0", "body.1"]


def test_macs_of_operators_that_are_not_known_are_no_share(tmp_path: Path) -> None:
    builder = Builder()
    value = builder.op("MatMul", builder.qdq("x"), builder.weight(64, 64, axis=1))
    packed = [builder.floats(64, 192), builder.floats(192)]
    value = builder.op("Attention", value, *packed, domain="com.microsoft", num_heads=4)
    model = builder.model(tmp_path, value, TOKENS)
    proto = onnx.load(model.path)
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w_in"], ["b"])], "branch", [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.eye(64, dtype=np.float32), "w_in")],
    )  # fmt: skip
    proto.graph.node.append(helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0))
    proto.graph.node.append(helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL))
    proto.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))
    proto.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    onnx.save(proto, model.path)
    kernels = kernels_of(model, model)
    assert kernels.integer_macs is None
    assert {"If", "Attention"} <= {row.operator for row in kernels.operators}


def test_a_file_from_outside_is_looked_at_in_a_child(tmp_path: Path, no_session_here: None) -> None:
    ours = network(tmp_path, "before"), network(tmp_path, "after", quantized=True)
    before, after = (replace(model, outside=Outside()) for model in ours)
    kernels = kernels_of(before, after)
    assert kernels.integer_macs == 1.0
    assert kernels.ratio


def test_a_child_that_runs_out_of_memory_is_told(tmp_path: Path) -> None:
    builder = Builder()
    tiled = builder.op("Tile", "x", builder.constant(np.int64([1, 1, 2**13, 2**9])))
    model = builder.model(tmp_path, builder.op("ReduceMax", tiled), IMAGE)
    model = replace(model, outside=Outside(limits=Limits(memory=2 * GIB)))
    with pytest.raises((ForeignError, StageError), match="looking at its kernels"):
        kernels_of(model, model)
    assert not [*tmp_path.glob("*optimized*")]


@pytest.mark.parametrize(("outside", "error"), [(Outside(), ConfigError), (None, StageError)])
def test_operators_that_nobody_knows_are_refused(tmp_path: Path, outside: Any, error: type[Exception]) -> None:
    builder = Builder()
    model = builder.model(tmp_path, builder.op("Frobnicate", "x", domain="custom"), IMAGE)
    proto = onnx.load(model.path)
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    onnx.save(proto, model.path)
    with pytest.raises(error, match="Frobnicate"):
        kernels_of(replace(model, outside=outside), replace(model, outside=outside))
