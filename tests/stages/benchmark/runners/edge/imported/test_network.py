"""ONNX files as modules of torch beside ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from stages.benchmark.runners.edge.imported.network import Backend, Network
from stages.benchmark.runners.edge.imported.program import folded
from stages.quantize.dynamic import DynamicQuantization
from tests import edge, graphs
from tests.aliases import Make

EXACT, FLOATS = Backend(holds_integers=True, ranges=False), Backend(holds_integers=False, ranges=False)
RANDOM = np.random.default_rng(0)


def answers(path: Path, feed: dict[str, Any], backend: Backend = EXACT) -> tuple[list[Any], list[Any]]:
    """What torch makes of a file, and what ONNX Runtime answers."""
    graph = folded(path, {name: list(value.shape) for name, value in feed.items()})
    network = Network(graph, list(feed), backend)
    ours = network(*(torch.from_numpy(value) for value in feed.values()))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [value.numpy() for value in ours], list(session.run(None, feed))


def node(kind: str, inputs: Sequence[str] = (), **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, ["input", *inputs], ["output"], **attributes)


FIELD = [2, 3, 6, 6]
WEIGHTS: dict[str, Any] = {
    "w": RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "deep": RANDOM.standard_normal((3, 1, 2, 2)).astype(np.float32),
    "b": RANDOM.standard_normal(4).astype(np.float32),
    "m": RANDOM.standard_normal((6, 5)).astype(np.float32),
    "c": RANDOM.standard_normal(6).astype(np.float32),
    "zero": np.float32(0),
    "six": np.float32(6),
    "axes": np.int64([2, 3]),
    "starts": np.int64([1, -1]),
    "ends": np.int64([5, -7]),
    "steps": np.int64([2, -1]),
    "sizes": np.int64([0, -1]),
    "pads": np.int64([0, 0, 1, 0, 0, 0, 0, 2]),
    "places": np.int64([[2, 0], [1, 1]]),
    "two": np.int64(2),
    "halves": np.int64([5, 1]),
    "m5": RANDOM.standard_normal((5, 6)).astype(np.float32),
    "b5": RANDOM.standard_normal(5).astype(np.float32),
}
NODES = [
    node("Conv", ["w", "b"], pads=[1, 1, 1, 1], strides=[2, 2]),
    node("Conv", ["w"], pads=[0, 1, 1, 0]),
    node("Conv", ["deep"], group=3, dilations=[2, 2]),
    node("MatMul", ["m"]),
    node("Add", ["c"]),
    node("Clip", ["zero", "six"]),
    node("Clip", ["zero"]),
    node("Clip", ["", "six"]),
    node("Relu"),
    node("LeakyRelu", alpha=0.2),
    node("Gelu", approximate="tanh"),
    node("Softmax", axis=1),
    node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    node("MaxPool", kernel_shape=[3, 2], ceil_mode=1),
    node("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
    node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    node("GlobalAveragePool"),
    node("ReduceMean", ["axes"], keepdims=0),
    node("ReduceMax", ["axes"]),
    node("ReduceSum", []),
    node("Transpose", perm=[0, 2, 3, 1]),
    node("Transpose"),
    node("Flatten"),
    node("Flatten", axis=2),
    node("Reshape", ["sizes"]),
    node("Squeeze", []),
    node("Unsqueeze", ["two"]),
    node("Slice", ["starts", "ends", "axes", "steps"]),
    node("Gather", ["places"], axis=1),
    node("Gather", ["two"], axis=3),
    node("Pad", ["pads"]),
    node("Concat", ["input"], axis=1),
    node("LayerNormalization", ["c", "c"], epsilon=1e-3),
]


CHAINS = [
    [helper.make_node("Cast", ["input"], ["whole"], to=7), helper.make_node("Cast", ["whole"], ["output"], to=1)],
    [helper.make_node("Split", ["input", "halves"], ["a", "z"], axis=3), helper.make_node("Add", ["a", "zero"], ["x"]),
     helper.make_node("Concat", ["z", "x"], ["output"], axis=3)],
    [helper.make_node("Greater", ["input", "zero"], ["is"]),
     helper.make_node("Where", ["is", "six", "input"], ["output"])],
    [helper.make_node("Flatten", ["input"], ["flat"], axis=3),
     helper.make_node("Gemm", ["flat", "m", "b5"], ["output"], alpha=0.5, beta=2.0)],
    [helper.make_node("Flatten", ["input"], ["flat"], axis=3),
     helper.make_node("Gemm", ["flat", "m5", "b5"], ["output"], transB=1)],
]  # fmt: skip
RUNS = [*([one] for one in NODES), *CHAINS]


@pytest.mark.parametrize("nodes", RUNS, ids=[f"{nodes[-1].op_type}-{i}" for i, nodes in enumerate(RUNS)])
def test_an_operator_gives_what_onnx_runtime_gives(nodes: list[onnx.NodeProto], tmp_path: Path) -> None:
    weights = {name: WEIGHTS[name] for one in nodes for name in one.input if name in WEIGHTS}
    path = tmp_path / "one.onnx"
    onnx.save(graphs.mapping(nodes, weights, FIELD), path)
    ours, theirs = answers(path, {"input": RANDOM.standard_normal(FIELD).astype(np.float32)})
    assert [value.shape for value in ours] == [value.shape for value in theirs]
    assert [value.dtype for value in ours] == [value.dtype for value in theirs]
    assert np.allclose(ours[0], theirs[0], atol=1e-5)


@pytest.mark.parametrize("backend", [EXACT, FLOATS])
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_a_quantized_network_has_the_same_integers(
    activations: str, backend: Backend, tiny: Make, context: Make
) -> None:
    file, step = edge.quantized(tiny(), context(), activations)
    feed = {"input": RANDOM.random((3, 1, 8, 8), dtype=np.float32)}
    (ours,), (theirs,) = answers(file.path, feed, backend)
    assert np.abs(ours - theirs).max() <= step * 1.01
    assert np.mean(ours == theirs) > 0.5


def test_attention_over_tokens_in_integers_has_the_same_answers(context: Make) -> None:
    ctx, model = context(), edge.words()
    feed = {name: value.numpy() for name, value in model.example.items()}
    (ours,), (theirs,) = answers(ctx.deployed(model).path, feed)
    assert np.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("ranges", [True, False])
def test_what_is_rounded_by_its_range_answers_as_closely(ranges: bool, context: Make) -> None:
    ctx, model = context(), edge.words()
    file = DynamicQuantization().run(ctx.deployed(model), ctx)
    feed = {name: value.numpy() for name, value in model.example.items()}
    (ours,), (theirs,) = answers(file.path, feed, Backend(holds_integers=True, ranges=ranges))
    assert np.abs(ours - theirs).max() < 0.02 * np.ptp(theirs)
    (exact,) = model.predict(model.example).values()
    assert np.abs(ours - exact.numpy()).max() < 0.02 * np.ptp(theirs)


def test_operators_that_are_not_known_are_named(tmp_path: Path) -> None:
    path = tmp_path / "one.onnx"
    onnx.save(graphs.mapping([node("Sign")], {}, FIELD), path)
    with pytest.raises(SystemExit, match="operators Sign have no form here"):
        folded(path, {"input": FIELD})
