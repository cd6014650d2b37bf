from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import torch

from pipeline.forms.packed import inlined
from pipeline.measure.cost import counted_macs, onnx_params
from pipeline.model import OnnxModel
from stages.quantize.packing.candidates import candidates
from stages.quantize.packing.functions import call_again
from stages.quantize.packing.graph import packed
from stages.quantize.packing.proof import operators
from tests.graphs import graph, node

RNG = np.random.default_rng(0)


def chain(layers: int) -> onnx.ModelProto:
    """Quantized convolutions one after the other, each with its own weights and scales."""
    nodes, weights, last = (
        [node("QuantizeLinear", ["x", "s"], ["q"]), node("DequantizeLinear", ["q", "s"], ["d"])],
        {},
        "d",
    )
    weights["s"] = np.float32(0.1)
    for i in range(layers):
        nodes += [
            node("DequantizeLinear", [f"w{i}", f"t{i}"], [f"v{i}"], axis=0),
            node("Conv", [last, f"v{i}"], [f"c{i}"], pads=[1] * 4),
            node("Relu", [f"c{i}"], [f"r{i}"]),
            node("QuantizeLinear", [f"r{i}", f"s{i}"], [f"q{i}"]),
            node("DequantizeLinear", [f"q{i}", f"s{i}"], [f"d{i}"]),
        ]
        weights |= {f"w{i}": RNG.integers(-1, 2, (16, 16, 3, 3)).astype(np.int8), f"s{i}": np.float32(0.1 + 0.01 * i)}
        weights |= {f"t{i}": RNG.uniform(0.01, 0.02, 16).astype(np.float32)}
        last = f"d{i}"
    return graph(nodes, {"x": ["n", 16, 8, 8]}, {last: ["n", 16, 8, 8]}, weights)


def test_what_comes_again_becomes_one_call_and_does_the_same(tmp_path: Path) -> None:
    proto = chain(6)
    models = []
    for name, functions in (("plain", False), ("called", True)):
        onnx.save(packed(proto, functions=functions).proto, tmp_path / f"{name}.onnx")
        models.append(OnnxModel(tmp_path / f"{name}.onnx", {"x": torch.randn(2, 16, 8, 8)}))
    plain, called = models
    assert called.path.stat().st_size < plain.path.stat().st_size - 400
    assert torch.equal(plain.predict(plain.example)["d5"], called.predict(plain.example)["d5"])
    assert operators(plain) == operators(called)
    assert operators(called)["QLinearConv"] == 6
    assert (onnx_params(called), counted_macs(called)) == (onnx_params(plain), counted_macs(plain))
    calls = Counter(one.op_type for one in onnx.load(called.path).graph.node if one.domain)
    assert max(calls.values()) >= 5
    kinds = [Counter(one.op_type for one in inlined(model.path).graph.node) for model in models]
    assert kinds[0] == kinds[1]


def test_a_short_graph_has_no_function() -> None:
    proto = graph(
        [node("Relu", ["x"], ["a"]), node("Neg", ["a"], ["b"]), node("Exp", ["b"], ["y"])], {"x": [4]}, {"y": [4]}
    )
    before = proto.SerializeToString()
    call_again(proto)
    assert proto.SerializeToString() == before


def test_a_value_that_two_read_or_that_is_an_output_stays() -> None:
    nodes = [node("Relu", ["x"], ["r"])]
    for i in range(8):
        nodes += [node("Neg", ["r"], [f"n{i}"]), node("Abs", [f"n{i}"], [f"a{i}"]), node("Exp", [f"n{i}"], [f"e{i}"])]
    ends = {f"{letter}{i}": [4] for letter in "ae" for i in range(8)}
    proto = graph(nodes, {"x": [4]}, ends)
    call_again(proto)
    assert not proto.functions


def test_a_file_without_functions_follows_for_graphs_where_they_do_not_do() -> None:
    called = [bool(one.packed.proto.functions) for one in candidates(chain(6), None, functions=True)]
    assert called == [True, True, False, False]
