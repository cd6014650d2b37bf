"""A part that is run again gives what the whole graph gives with other weights, to rounding."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pipeline.forms.sandbox.child import open_session
from pipeline.measure.sensitivity.behind import behind
from pipeline.measure.sensitivity.replay import Replay
from tests.graphs import graph, node, port

RNG = np.random.default_rng(0)


def draw(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def network() -> onnx.ModelProto:
    """Two branches that meet, a choice whose branches read values of the graph around, and a second output."""
    then, other = (
        helper.make_graph([node(kind, ["c"], [f"{kind}_out"])], kind, [], [port(f"{kind}_out", None)])
        for kind in ("Relu", "Tanh")
    )
    return graph(
        [
            node("MatMul", ["x", "w1"], ["a"], "first"),
            node("Relu", ["a"], ["b"], "relu"),
            node("MatMul", ["b", "w2"], ["c"], "second"),
            node("MatMul", ["x", "w3"], ["d"], "beside"),
            node("If", ["yes"], ["e"], "choice", then_branch=then, else_branch=other),
            node("Add", ["e", "d"], ["f"], "sum"),
            node("MatMul", ["f", "w4"], ["y"], "last"),
            node("MatMul", ["a", "w5"], ["z"], "aside"),
        ],
        {"x": ["n", 5]},
        {"y": ["n", 3], "z": ["n", 2]},
        {"w1": draw(5, 6), "w2": draw(6, 4), "w3": draw(5, 4), "w4": draw(4, 3), "w5": draw(6, 2), "yes": np.True_},
    )  # fmt: skip


def whole(proto: onnx.ModelProto, changed: dict[str, Any], feed: Any, folder: Path) -> Any:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    onnx.save(copy, folder / "changed.onnx")
    return open_session(folder / "changed.onnx", optimize=False).run(["y"], feed)[0]


@pytest.mark.parametrize(
    ("name", "weight", "sources"),
    [("first", "w1", {"x", "d"}), ("second", "w2", {"b", "d"}), ("beside", "w3", {"x", "e"}), ("last", "w4", {"f"})],
)
def test_a_part_answers_as_the_whole(name: str, weight: str, sources: set[str], tmp_path: Path) -> None:
    proto = network()
    onnx.save(proto, tmp_path / "net.onnx")
    part = behind(proto, [name], "y")
    assert part is not None
    assert {*part.sources} == sources
    replay = Replay(tmp_path / "net.onnx", "y", part.sources)
    feeds = [{"x": RNG.normal(size=(n, 5)).astype(np.float32)} for n in (3, 2)]
    replay.read(feeds)
    (tensor,) = (t for t in proto.graph.initializer if t.name == weight)
    other = (numpy_helper.to_array(tensor) * 1.5).astype(np.float32)
    ran = replay.part(part, [weight])
    for feed, (answer, changed) in zip(feeds, ran.answers({weight: other}), strict=True):
        np.testing.assert_allclose(answer, whole(proto, {}, feed, tmp_path), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(changed, whole(proto, {weight: other}, feed, tmp_path), rtol=1e-5, atol=1e-6)
        assert np.abs(changed - answer).max() > 0.1
    assert replay.examples == 5


def test_what_does_not_reach_the_output_has_no_part() -> None:
    assert behind(network(), ["aside"], "y") is None


def test_no_more_is_read_than_there_is_room_for(tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "net.onnx")
    replay = Replay(tmp_path / "net.onnx", "y", ["c"], most_bytes=1000)
    read = []

    def batches() -> Any:
        for i in range(100):
            read.append(i)
            yield {"x": np.zeros((10, 5), np.float32)}

    replay.read(batches())
    assert len(read) == len(replay.batches) == 3  # 10 rows of 5 + 4 + 3 numbers are 480 bytes
