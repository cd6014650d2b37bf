from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from stages.quantize.rounding.moments import Moments
from tests.graphs import graph, node
from tests.quantizing import draw

WEIGHTS = {"a": draw(5, 4), "b": draw(5, 3), "c": draw(4, 2)}


def branching(path: Path) -> list[Any]:
    """x @ a and x @ b, and relu(x @ a) @ c; each product with the shape of its weight."""
    nodes = [
        node("MatMul", ["x", "a"], ["h"], "one"),
        node("MatMul", ["x", "b"], ["y"], "two"),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "c"], ["z"], "three"),
    ]
    ends = {"x": ["batch", 5]}, {"y": ["batch", 3], "z": ["batch", 2]}
    onnx.save(graph(nodes, *ends, WEIGHTS), path)
    return [(nodes[i], WEIGHTS[name].shape) for i, name in ((0, "a"), (1, "b"), (3, "c"))]


def test_sums_over_batches_are_those_of_all_rows(tmp_path: Path) -> None:
    layers = branching(tmp_path / "net.onnx")
    moments, values = Moments(tmp_path / "net.onnx", layers), draw(30, 5)
    for part in np.array_split(values, 4):
        moments.add({"x": part})
    hidden = np.maximum(values @ WEIGHTS["a"], 0)
    for layer, rows in zip(layers, (values, values, hidden), strict=True):
        sums = moments.of(*layer)
        assert sums.number == 30
        np.testing.assert_allclose(sums.mean[0], rows.mean(0), rtol=1e-5)
        np.testing.assert_allclose(sums.around(mean=False)[0], rows.T @ rows, atol=1e-5)
        np.testing.assert_allclose(sums.around(mean=True)[0], 30 * np.cov(rows.T, bias=True), atol=1e-5)
    assert len(moments.sums) == 2  # what reads the same rows is summed once


def test_a_layer_of_the_inputs_alone_runs_nothing(tmp_path: Path) -> None:
    first, *_ = branching(tmp_path / "net.onnx")
    moments = Moments(tmp_path / "net.onnx", [first])
    moments.add({"x": np.ones((2, 5), np.float32)})
    np.testing.assert_array_equal(moments.of(*first).around(mean=False)[0], np.full((5, 5), 2))


def test_inputs_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    moments = Moments(tmp_path / "net.onnx", branching(tmp_path / "net.onnx"))
    with pytest.raises(ValueError, match="the node `one` inputs that are not finite"):
        moments.add({"x": np.full((2, 5), np.inf, np.float32)})
