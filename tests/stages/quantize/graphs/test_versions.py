"""Files of old opsets in a newer one, against the same file before, both run by ONNX Runtime."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from stages.quantize.graphs.versions import OLDEST, raised
from tests.graphs import graph, node, port

RNG = np.random.default_rng(0)
IMAGE, ROW = [2, 3, 6, 6], [3, 4]


def draw(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def body() -> onnx.GraphProto:
    nodes = [node("Unsqueeze", ["x"], ["u"], axes=[0]), node("Squeeze", ["u"], ["o"], axes=[0])]
    return helper.make_graph(nodes, "body", [], [port("o", None)])


TWICE = np.array([1, 1, 2, 2], np.float32)
CASES: dict[str, tuple[int, list[onnx.NodeProto], list[int], dict[str, Any]]] = {
    "resize, linear": (10, [node("Resize", ["x", "s"], ["y"], mode="linear")], IMAGE, {"s": TWICE}),
    "resize, nearest": (10, [node("Resize", ["x", "s"], ["y"])], IMAGE, {"s": np.float32([1, 1, 1.5, 1.5])}),
    "resize, smaller": (10, [node("Resize", ["x", "s"], ["y"])], IMAGE, {"s": np.float32([1, 1, 0.6, 0.6])}),
    "upsample, linear": (9, [node("Upsample", ["x", "s"], ["y"], mode="linear")], IMAGE, {"s": TWICE}),
    "upsample of 7": (7, [node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0])], IMAGE, {}),
    "resize of 11": (11, [node("Resize", ["x", "e", "s"], ["y"], mode="linear")], IMAGE, {"s": TWICE, "e": draw(0)}),
    "softmax over what follows": (11, [node("Softmax", ["x"], ["y"], axis=1)], IMAGE, {}),
    "clip": (9, [node("Clip", ["x"], ["y"], min=-0.5, max=0.5)], ROW, {}),
    "pad": (9, [node("Pad", ["x"], ["y"], pads=[0, 0, 1, 1, 0, 0, 1, 1], value=2.0)], IMAGE, {}),
    "dropout": (
        7,
        [node("Dropout", ["x"], ["d"]), node("Gemm", ["d", "w", "b"], ["y"])],
        ROW,
        {"w": draw(4, 5), "b": draw(5)},
    ),
    "slice": (9, [node("Slice", ["x"], ["y"], axes=[1], starts=[1], ends=[3])], ROW, {}),
    "split": (11, [node("Split", ["x"], ["a", "b"], axis=1), node("Sub", ["a", "b"], ["y"])], ROW, {}),
    "sum": (11, [node("ReduceSum", ["x"], ["y"], axes=[1])], ROW, {}),
    "norm": (
        7,
        [node("BatchNormalization", ["x", "g", "g", "g", "v"], ["y"])],
        IMAGE,
        {"g": draw(3), "v": np.float32([1, 2, 3])},
    ),
    "branch": (
        11,
        [
            node("ReduceSum", ["x"], ["t"], keepdims=0),
            node("Greater", ["t", "z"], ["c"]),
            node("If", ["c"], ["y"], then_branch=body(), else_branch=body()),
        ],
        ROW,
        {"z": np.float32(0)},
    ),
}  # fmt: skip


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["y"], {"x": x})[0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_a_raised_file_computes_the_same(case: str) -> None:
    version, nodes, shape, weights = CASES[case]
    ir = 3 if version < 9 else 6
    ends: dict[str, Any] = {"x": ["n", *shape[1:]]}
    if ir == 3:
        ends |= {name: [*value.shape] for name, value in weights.items()}
    proto = graph(nodes, ends, {"y": None}, weights, opset_imports=[helper.make_opsetid("", version)], ir_version=ir)
    x = RNG.normal(size=shape).astype(np.float32)
    expected, newer = run(proto, x), raised(proto)
    onnx.checker.check_model(newer)
    assert newer.opset_import[0].version == OLDEST
    assert newer.ir_version >= 7
    assert [value.name for value in newer.graph.input] == ["x"]
    assert np.allclose(run(newer, x), expected, atol=1e-6)


def test_a_newer_file_is_left_as_it_is() -> None:
    proto = graph([node("Relu", ["x"], ["y"])], {"x": ["n"]}, {"y": ["n"]})
    content = proto.SerializeToString()
    assert raised(proto).SerializeToString() == content


def test_an_operator_that_cannot_be_raised_is_an_error() -> None:
    scan = node("Scan", ["x"], ["y"], body=body(), num_scan_inputs=1)
    proto = graph([scan], {"x": ["n"]}, {"y": ["n"]}, opset_imports=[helper.make_opsetid("", 8)])
    with pytest.raises(ValueError, match=r"its opset 8 could not be raised to 13: .*Export it again with opset 13"):
        raised(proto)
