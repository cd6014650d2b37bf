"""Values inside a graph, beside numpy; its external data stay where they are."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.forms.deployed.values import Values
from tests.graphs import graph, node

X = np.array([[1, -2, 3, -4]], np.float32)
W = np.arange(-6, 6, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]), node("Neg", ["r"], ["y"])]
    proto = graph(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": W})
    path = tmp_path / "net.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="net.data", size_threshold=0)
    return path


@pytest.mark.parametrize("optimize", [True, False])
def test_values_are_those_of_numpy(source: Path, optimize: bool) -> None:
    before = {path.name: path.read_bytes() for path in source.parent.iterdir()}
    values = Values(source, ["r", "y", "h", "r", "x"], optimize=optimize).of({"x": X, "mask": X})
    assert {*values} == {"x", "mask", "h", "r", "y"}
    np.testing.assert_allclose(values["h"], X @ W)
    np.testing.assert_allclose(values["r"], np.maximum(X @ W, 0))
    np.testing.assert_allclose(values["y"], -values["r"])
    assert {name: (source.parent / name).read_bytes() for name in before} == before


def test_inputs_alone_are_not_computed(source: Path) -> None:
    assert [*Values(source, ["x"]).of({"x": X})] == ["x"]
