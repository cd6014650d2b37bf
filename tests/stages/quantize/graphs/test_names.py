import numpy as np
import onnx
import pytest

from pipeline.errors import StageError
from stages.quantize.graphs.names import compact_names, distinct_names, merge_copies
from tests import graphs
from tests.graphs import mapping, node, run

RNG = np.random.default_rng(0)


def with_branches() -> onnx.ModelProto:
    """output = input * 2 where the sum is above 0, else input + bias; the branches read names from outside."""
    name, multiply = "a_long_name_from_outside", {"name": "multiply"}
    then = graphs.graph([node("Mul", [name, "two"], ["a_long_then"], **multiply)], {}, {"a_long_then": None}).graph
    add, bias = node("Add", [name, "bias"], ["a_long_else"], name="add"), {"bias": np.float32(5)}
    other = graphs.graph([add], {}, {"a_long_else": None}, bias).graph
    nodes = [
        node("Identity", ["input"], ["a_long_name_from_outside"], name="first"),
        node("ReduceSum", ["input", ""], ["total"], keepdims=0),
        node("Greater", ["total", "zero"], ["positive"]),
        node("If", ["positive"], ["output"], then_branch=then, else_branch=other),
    ]
    return mapping(nodes, {"two": np.float32(2), "zero": np.float32(0)}, ["n"])


def test_compact_names_reaches_into_branches_and_keeps_the_ends() -> None:
    proto, small = with_branches(), with_branches()
    compact_names(small.graph)
    for x in (np.array([1, 2], np.float32), np.array([-1, -2], np.float32)):
        assert np.array_equal(run(proto, x), run(small, x))
    assert small.ByteSize() < proto.ByteSize()
    assert [v.name for v in (*small.graph.input, *small.graph.output)] == ["input", "output"]
    inner = {name for n in small.graph.node for name in (*n.input, *n.output)} - {"input", "output", ""}
    assert all(len(name) == 1 for name in inner)


def test_compact_names_avoids_the_names_of_the_ends() -> None:
    proto = mapping([node("Add", ["input", "long_name"], ["output"])], {"long_name": np.float32([3])}, [1])
    for side, name in ((proto.graph.input, "b"), (proto.graph.output, "a")):
        side[0].name = name
    proto.graph.node[0].input[0], proto.graph.node[0].output[0] = "b", "a"
    compact_names(proto.graph)
    onnx.checker.check_model(proto)
    assert list(proto.graph.node[0].input) == ["b", "c"]
    assert [t.name for t in proto.graph.initializer] == ["c"]


def test_distinct_names_begin_no_other_and_are_told_as_the_user_knows_them() -> None:
    proto, other = with_branches(), with_branches()
    names = distinct_names(other.graph)
    x = np.array([1, 2], np.float32)
    assert np.array_equal(run(other, x), run(proto, x))
    every = [*names.values, *names.nodes]
    assert not [(a, b) for a in every for b in every if a != b and b.startswith(a)]
    assert sorted(names.values.values()) == sorted({
        "input", "output", "a_long_name_from_outside", "total", "positive", "two", "zero", "bias", "a_long_then",
        "a_long_else",
    })  # fmt: skip
    assert {"first", "multiply", "add"} <= set(names.nodes.values())
    new = {old: name for name, old in (names.values | names.nodes).items()}
    assert names.plain(f"node '{new['multiply']}' reads {new['two']}_scale, x{new['two']}, v99x") == (
        f"node 'multiply' reads two_scale, x{new['two']}, v99x"
    )
    with pytest.raises(StageError, match="the quantizer: ValueError: no range of `bias`"), names.blame("the quantizer"):
        raise ValueError(f"no range of `{new['bias']}`")
    compact_names(other.graph, names.values)
    assert [v.name for v in (*other.graph.input, *other.graph.output)] == ["input", "output"]
    assert np.array_equal(run(other, x), run(proto, x))


def test_copies_of_a_bias_are_one_again() -> None:
    values = {"v1x": np.float32([3]), "v1x1": np.float32([3]), "v1x_quantized": np.float32([4])}
    nodes = [
        node("Add", ["input", "v1x"], ["h"]),
        node("Add", ["h", "v1x1"], ["k"]),
        node("Mul", ["k", "v1x_quantized"], ["output"]),
    ]
    proto = mapping(nodes, values, [1])
    expected = run(proto, np.float32([1]))
    merge_copies(proto.graph)
    assert [t.name for t in proto.graph.initializer] == ["v1x", "v1x_quantized"]
    assert np.array_equal(run(proto, np.float32([1])), expected)
