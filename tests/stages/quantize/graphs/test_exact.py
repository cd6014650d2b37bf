"""What is compared, rounded or an angle is computed in fp32 where nothing else reads it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx import TensorProto

from stages.quantize.graphs.exact import DEQUANTIZED, read_exactly
from tests.graphs import graph, node, run
from tests.quantizing import STATIC, Ran, draw, old


def test_what_is_computed_for_a_comparison_alone_reads_values_and_the_rest_what_8_bits_leave() -> None:
    nodes = [
        node("QuantizeLinear", ["input", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], [f"input{DEQUANTIZED}"]),
        node("Abs", [f"input{DEQUANTIZED}"], ["size"]),
        node("Greater", ["size", "edge"], ["is_large"]),
        node("Where", ["is_large", f"input{DEQUANTIZED}", "edge"], ["output"]),
    ]
    scalars = {"s": np.float32(1), "z": np.int8(0), "edge": np.float32(0.4)}
    proto = graph(nodes, {"input": ["n"]}, {"output": ["n"]}, scalars)
    x = np.array([0.45, 0.3, -0.6], np.float32)
    assert np.allclose(run(proto, x), [0.4, 0.4, -1])
    read_exactly(proto.graph)
    assert np.allclose(run(proto, x), [0, 0.4, -1])


SENSITIVE = {
    "an angle": [node("Mul", ["x", "turns"], ["a"]), node("Sin", ["a"], ["e"])],
    "angles of positions": [
        node("Unsqueeze", ["x", "two"], ["column"]),
        node("MatMul", ["column", "frequencies"], ["a"]),
        node("Cos", ["a"], ["c"]),
        node("ReduceSum", ["c", "one"], ["e"], keepdims=0),
    ],
    "an index": [
        node("Mul", ["x", "rows"], ["place"]),
        node("Cast", ["place"], ["i"], to=TensorProto.INT64),
        node("Gather", ["table", "i"], ["e0"]),
        node("ReduceMean", ["e0"], ["e"], axes=[1], keepdims=0),
    ],
    "a rest": [node("Mul", ["x", "turns"], ["a"]), node("Mod", ["a", "unit"], ["e"], fmod=1)],
}


@pytest.mark.parametrize("kind", SENSITIVE)
def test_what_a_small_change_turns_is_computed_in_fp32(kind: str, quantized: Callable[..., Ran]) -> None:
    weights = {
        "turns": np.float32(900),
        "rows": np.float32(499),
        "unit": np.float32(1),
        "one": np.array([1]),
        "two": np.array([2]),
        "frequencies": np.geomspace(1e-2, 1e3, 8, dtype=np.float32)[None],
        "table": draw(500, 8),
        "w": draw(8, 4),
    }
    proto = old(
        [*SENSITIVE[kind], node("MatMul", ["e", "w"], ["y"])], {"x": ["n", 8]}, {"y": ["n", 4]}, weights=weights
    )
    ran = quantized(STATIC, proto, x=torch.rand(64, 8, generator=torch.Generator().manual_seed(0)))
    assert ran.error < 0.05
    assert ran.report["exact"]
    assert ran.report["quantized"]["MatMul"] == 1
