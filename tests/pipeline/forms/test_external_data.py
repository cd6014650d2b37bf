"""Graphs that share a file of weights: equal ones lie there once, and each graph computes as before."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from pipeline.forms.external_data import DATA, digest_of, graphs_at, load_whole, save_together, stored
from tests.graphs import graph, node

MATRIX = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
OTHER = np.random.default_rng(1).normal(size=(12, 8)).astype(np.float32)


def product(weight: Any, name: str = "w") -> onnx.ModelProto:
    """x @ weight."""
    return graph([node("MatMul", ["x", name], ["y"])], {"x": ["n", None]}, {"y": ["n", None]}, {name: weight})


def run(path: Path, x: Any) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def test_equal_weights_lie_once_and_the_graphs_compute_as_before(tmp_path: Path) -> None:
    save_together({"a": product(MATRIX), "b": product(MATRIX, "other_name"), "c": product(OTHER)}, tmp_path)
    assert (tmp_path / DATA).stat().st_size == 2 * MATRIX.nbytes
    x = np.ones((3, 12), np.float32)
    for name, weight in {"a": MATRIX, "b": MATRIX, "c": OTHER}.items():
        np.testing.assert_allclose(run(tmp_path / f"{name}.onnx", x), x @ weight, rtol=1e-6)


def test_a_matrix_and_its_transpose_lie_once(tmp_path: Path) -> None:
    save_together({"a": product(MATRIX), "b": product(MATRIX.T.copy())}, tmp_path)
    assert (tmp_path / DATA).stat().st_size == MATRIX.nbytes
    x = np.ones((3, 8), np.float32)
    np.testing.assert_allclose(run(tmp_path / "b.onnx", x), x @ MATRIX.T, rtol=1e-6)
    assert len(stored(graphs_at(tmp_path))) == 1


def test_small_weights_and_shapes_stay_in_the_graph(tmp_path: Path) -> None:
    proto = product(MATRIX[:1])  # 32 bytes
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(99, dtype=np.int64), "shape"))
    save_together({"a": proto}, tmp_path)
    assert (tmp_path / DATA).read_bytes() == b""
    assert [len(t.raw_data) for _, t in stored(graphs_at(tmp_path))] == [32, 792]


def test_the_given_graphs_are_not_changed(tmp_path: Path) -> None:
    proto = product(MATRIX)
    before = proto.SerializeToString()
    save_together({"a": proto, "b": product(MATRIX.T.copy())}, tmp_path)
    assert proto.SerializeToString() == before


def test_a_graph_is_loaded_whole_also_from_linked_files(tmp_path: Path) -> None:
    save_together({"a": product(OTHER), "b": product(MATRIX)}, tmp_path / "store")
    (tmp_path / "run").mkdir()
    for name in ("b.onnx", DATA):
        os.link(tmp_path / "store" / name, tmp_path / "run" / name)
    (tensor,) = load_whole(tmp_path / "run" / "b.onnx").graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), MATRIX)
    with pytest.raises(onnx.checker.ValidationError, match="hard"):  # why we do not leave it to onnx
        onnx.load(tmp_path / "run" / "b.onnx")


def test_the_digest_of_a_folder_tells_a_changed_weight_and_leaves_other_files_aside(tmp_path: Path) -> None:
    save_together({"a": product(MATRIX)}, tmp_path)
    first = digest_of(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    assert digest_of(tmp_path) == first
    content = bytearray((tmp_path / DATA).read_bytes())
    content[-1] ^= 1
    (tmp_path / DATA).write_bytes(content)
    assert digest_of(tmp_path) != first
