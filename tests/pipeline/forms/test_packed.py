"""What decodes in numpy is what ONNX's own reference computes, and nothing else is taken for packed."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from pipeline.errors import StageError
from pipeline.forms.packed import MARK, decoders, is_packed, unpacked
from tests.graphs import graph, node
from tests.packing import ternary

RNG = np.random.default_rng(0)
WHOLE = {
    "words": np.array([[[200, 3, 7]], [[9, 255, 0]]], np.uint8), "powers": np.array([[1], [2], [4]], np.int32),
    "two": np.int32(2), "places": np.array([[[1]], [[2]]], np.int32), "axis": np.array([0]), "flat": np.array([-1]),
    "book": np.array([-5, 0, 7, 9], np.int8), "cut": np.array([4, 5]), "first": np.int32(0), "count": np.array([40]),
    "other": np.array([1, 2, 4, 8], np.uint8), "one": np.array([8, 16, 32, 64], np.uint8),
}  # fmt: skip
NODES = [
    node("Cast", ["words"], ["w"], to=TensorProto.INT32),
    node("Div", ["w", "powers"], ["d"]),
    node("Mod", ["d", "two"], ["m"]),
    node("Mul", ["m", "places"], ["p"]),
    node("ReduceSum", ["p", "axis"], ["s"], keepdims=0),
    node("Reshape", ["s", "flat"], ["i"]),
    node("GatherElements", ["book", "i"], ["v"]),
    node("Split", ["v", "cut"], ["left", "right"]),
    node("Cast", ["i"], ["g"], to=TensorProto.INT32),
    node("CumSum", ["g", "first"], ["at"]),
    node("ConstantOfShape", ["count"], ["z"], value=numpy_helper.from_array(np.zeros(1, np.int8))),
    node("ScatterElements", ["z", "at", "v"], ["scattered"]),
    node("Concat", ["left", "right"], ["joined"], axis=0),
    node("BitwiseOr", ["one", "other"], ["or"]),
    node("Identity", ["or"], ["same"]),
]


@pytest.mark.parametrize("name", ["left", "right", "joined", "same", "at"])
def test_numpy_decodes_what_the_reference_does(name: str, tmp_path: Path) -> None:
    kinds = {"same": TensorProto.UINT8, "at": TensorProto.INT32}
    kind = kinds.get(name, TensorProto.INT8)
    proto = graph(NODES, {}, {name: (kind, [None])}, WHOLE)
    proto.graph.name = MARK
    onnx.save(proto, tmp_path / "packed.onnx")
    plain = unpacked(tmp_path / "packed.onnx").graph
    assert not plain.node
    (tensor,) = (t for t in plain.initializer if t.name == name)
    (expected,) = ReferenceEvaluator(proto).run(None, {})
    assert tensor.data_type == kind
    assert np.array_equal(numpy_helper.to_array(tensor), expected)


@pytest.mark.parametrize("largest", [1, 2, 7, 15, 40, 63])
def test_a_single_weight_is_known_as_packed_and_decodes(largest: int, tmp_path: Path) -> None:
    ternary(tmp_path / "packed.onnx", largest)
    before, packed = (onnx.load(tmp_path / f"{name}.onnx") for name in ("plain", "packed"))
    assert packed.ByteSize() < before.ByteSize()
    assert is_packed(packed.graph)
    tables = [numpy_helper.to_array(before.graph.initializer[0])]
    tables += [
        numpy_helper.to_array(t) for t in unpacked(tmp_path / "packed.onnx").graph.initializer if len(t.dims) == 2
    ]
    assert len(tables) == 2
    assert np.array_equal(*tables)


def test_a_tensor_that_decodes_to_more_than_can_be_is_refused(tmp_path: Path) -> None:
    nodes = [node("ConstantOfShape", ["count"], ["z"]), node("Split", ["z", "sizes"], ["y"])]
    nodes[0].attribute.append(onnx.helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.int8))))
    weights = {"count": np.array([2**40]), "sizes": np.array([2**40])}
    proto = graph(nodes, {}, {"y": (TensorProto.INT8, [None])}, weights)
    proto.graph.name = MARK
    onnx.save(proto, tmp_path / "bomb.onnx")
    with pytest.raises(StageError, match="a weight decodes to 1,099,511,627,776 elements"):
        unpacked(tmp_path / "bomb.onnx")


def test_a_plain_file_stays_as_it_is(tmp_path: Path) -> None:
    ternary(tmp_path / "packed.onnx")
    before = onnx.load(tmp_path / "plain.onnx")
    assert not is_packed(before.graph)
    assert unpacked(tmp_path / "plain.onnx") == before
    assert is_packed(onnx.load(tmp_path / "packed.onnx").graph)


def test_what_depends_on_an_input_is_no_decoder() -> None:
    nodes = [node("Reshape", ["w", "flat"], ["v"]), node("GatherElements", ["v", "x"], ["y"])]
    weights = {"w": np.arange(6, dtype=np.int8).reshape(2, 3), "flat": np.array([-1])}
    body = graph(nodes, {"x": (TensorProto.INT64, ["n"])}, {"y": (TensorProto.INT8, ["n"])}, weights).graph
    body.name = MARK
    assert [one.op_type for one in decoders(body)] == ["Reshape"]
    assert not is_packed(body)


def test_constants_of_other_files_are_left_alone(tmp_path: Path) -> None:
    nodes = [
        node("Split", ["w"], ["a", "b"], axis=1, num_outputs=2), node("Div", ["a", "half"], ["c"]),
        node("MatMul", ["x", "c"], ["y"]), node("MatMul", ["x", "b"], ["z"]),
    ]  # fmt: skip
    weights = {"w": RNG.normal(size=(4, 6)), "half": np.float32(0.5)}
    proto = graph(nodes, {"x": ["n", 4]}, {"y": ["n", 3], "z": ["n", 3]}, weights)
    onnx.save(proto, tmp_path / "net.onnx")
    assert unpacked(tmp_path / "net.onnx") == proto
    proto.graph.name = MARK  # and of one that has that name by chance
    assert not is_packed(proto.graph)
