import numpy as np
import onnx

from stages.quantize.halves.graph import floats, meant, store, too_large
from tests.graphs import graph, node, run


def net() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    nodes = [
        node("MatMul", ["x", "blocks.0.fc.weight"], ["a"], "first"),
        node("Add", ["a", "small"], ["b"], "shift"),
        node("Gemm", ["b", "head.weight", "head.bias"], ["y"], "last", transB=1),
    ]
    weights = {"blocks.0.fc.weight": rng.normal(size=(8, 40)), "small": rng.normal(size=40)[:1]}
    weights |= {"head.weight": rng.normal(size=(40, 40)), "head.bias": rng.normal(size=40)}
    return graph(nodes, {"x": ["n", 8]}, {"y": ["n", 40]}, weights)


def test_weights_are_stored_with_a_cast_each() -> None:
    proto = net()
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    before = run(proto, x)
    store(proto.graph, "fp16", floats(proto.graph, ["last"]))
    kinds = {t.name: t.data_type for t in proto.graph.initializer}
    assert kinds["blocks.0.fc.weight_fp16"] == onnx.TensorProto.FLOAT16
    assert kinds["head.weight"] == kinds["small"] == onnx.TensorProto.FLOAT
    assert [n.op_type for n in proto.graph.node] == ["Cast", "MatMul", "Add", "Gemm"]
    assert np.abs(run(proto, x) - before).max() < 1e-2 * np.abs(before).max()


def test_what_is_worth_it() -> None:
    assert [t.name for t in floats(net().graph)] == ["blocks.0.fc.weight", "head.weight", "head.bias"]


def test_names_mean_operators_nodes_layers_and_what_they_are_in() -> None:
    keys = ["Gemm", "first", "blocks", "blocks.0.fc", "head", "head.bias", "fc"]
    some = meant(net().graph, keys)
    assert some == {
        "Gemm": ["last"], "first": ["first"], "blocks": ["first"], "blocks.0.fc": ["first"], "head": ["last"],
        "head.bias": ["last"], "fc": [],
    }  # fmt: skip


def test_what_fp16_does_not_hold_stays() -> None:
    nodes = [node("Where", ["c", "x", "mask"], ["m"], "hide"), node("Softmax", ["m"], ["y"], "softmax")]
    proto = graph(nodes, {"c": (9, [2]), "x": [2]}, {"y": [2]}, {"mask": np.float32(-3e38)})
    assert too_large(proto.graph) == ["hide", "softmax"]
    proto = graph([node("Mul", ["x", "k"], ["y"], "large")], {"x": [2]}, {"y": [2]}, {"k": np.float32(1e5)})
    assert too_large(proto.graph) == ["large"]
