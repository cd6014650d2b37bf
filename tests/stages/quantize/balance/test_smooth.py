"""Smoothed inputs of matrix products: the same outputs, and outliers halved between inputs and weights."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from stages.quantize.balance.smooth import smooth
from stages.quantize.quantizing.calibration_data import CalibrationData
from tests.graphs import graph, node, run

RNG = np.random.default_rng(0)
WIDTH = 16
X = RNG.normal(size=(8, 5, WIDTH)).astype(np.float32)


def block(post: bool) -> onnx.ModelProto:
    """A LayerNormalization with outliers, three products of it, a feed-forward part: (N, 5, 16) -> (N, 5, 16).

    Args:
        post: whether the sum behind reads the norm too, and not what comes in.
    """
    scale = np.ones(WIDTH)
    scale[[3, 11]] = 40
    nodes = [
        node("LayerNormalization", ["x", "scale", "shift"], ["n"], "norm", axis=-1),
        node("MatMul", ["n", "q"], ["a"], "query"),
        node("MatMul", ["n", "k"], ["b"], "key"),
        node("Mul", ["a", "b"], ["c"]),
        node("Add", ["c", "n" if post else "x"], ["d"]),
        node("LayerNormalization", ["d", "scale2", "shift2"], ["e"], "norm2"),
        node("MatMul", ["e", "up"], ["f"], "up"),
        node("Add", ["f", "bias"], ["g"]),
        node("Relu", ["g"], ["h"]),
        node("MatMul", ["h", "down"], ["i"], "down"),
        node("Add", ["i", "e" if post else "d"], ["y"]),
    ]
    weights: dict[str, Any] = {"scale": scale, "shift": RNG.normal(size=WIDTH), "scale2": scale, "shift2": scale * 0}
    weights |= {name: RNG.normal(size=(WIDTH, WIDTH)) * 0.1 for name in ("q", "k")}
    weights |= {"up": RNG.normal(size=(WIDTH, 32)) * 0.1, "bias": RNG.normal(size=32)}
    weights["down"] = RNG.normal(size=(32, WIDTH)) * 0.1
    return graph(nodes, {"x": ["n", 5, WIDTH]}, {"y": ["n", 5, WIDTH]}, weights)


def data() -> CalibrationData:
    return CalibrationData(iter([{"x": X[:4]}, {"x": X[4:]}]), 2)


@pytest.mark.parametrize("post", [False, True])
def test_outputs_stay(post: bool, tmp_path: Path) -> None:
    proto = block(post)
    onnx.save(proto, tmp_path / "net.onnx")
    before = run(proto, X)
    assert smooth(proto.graph, 0.5, tmp_path / "net.onnx", data()) == ["query", "key", "up", "down"]
    assert np.abs(run(proto, X) - before).max() < 1e-4 * np.abs(before).max()
    norms = [n for n in proto.graph.node if n.op_type == "LayerNormalization"]
    assert len(norms) == (4 if post else 2)


def test_the_factors_are_the_closed_form(tmp_path: Path) -> None:
    proto = block(post=False)
    onnx.save(proto, tmp_path / "net.onnx")
    old = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    seen = onnx.load(tmp_path / "net.onnx")
    seen.graph.output.append(onnx.ValueInfoProto(name="n"))
    session = onnxruntime.InferenceSession(seen.SerializeToString(), providers=["CPUExecutionProvider"])
    values = np.abs(session.run(["n"], {"x": X})[0]).reshape(-1, WIDTH).max(0)
    smooth(proto.graph, 0.7, tmp_path / "net.onnx", data())
    weights = np.maximum(np.abs(old["q"]).max(1), np.abs(old["k"]).max(1))
    factors = values**0.7 / weights**0.3  # eq. 4
    new = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    assert new["q"] == pytest.approx(old["q"] * factors[:, None], rel=1e-4)
    assert new["scale"] == pytest.approx(old["scale"] / factors, rel=1e-4)
    assert new["shift"] == pytest.approx(old["shift"] / factors, rel=1e-4)


def test_inputs_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    proto = block(post=False)
    onnx.save(proto, tmp_path / "net.onnx")
    wrong = CalibrationData(iter([{"x": np.full_like(X, np.inf)}]), 1)
    with pytest.raises(ValueError, match="not finite"):
        smooth(proto.graph, 0.5, tmp_path / "net.onnx", wrong)
