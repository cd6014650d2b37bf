"""An ONNX file as a model: its external data go with it, and it says which inputs are missing."""

from pathlib import Path

import onnx
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.model import OnnxModel, load
from tests import graphs

X = torch.rand(2, 6, generator=torch.Generator().manual_seed(0))


def external(path: Path) -> OnnxModel:
    """y = x @ w, with w in a file beside the graph."""
    product = [graphs.node("MatMul", ["x", "w"], ["y"])]
    proto = graphs.graph(product, {"x": ["batch", 6]}, {"y": ["batch", 6]}, {"w": torch.eye(6).mul(3)})
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return OnnxModel(path, {"x": X})


def test_an_onnx_model_is_saved_with_its_external_data(tmp_path: Path) -> None:
    model = external(tmp_path / "graph.onnx")
    assert [p.name for p in model.files()] == ["graph.onnx", "weights.bin"]
    model.save(tmp_path / "saved")
    (tmp_path / "weights.bin").unlink()
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == [
        "example.safetensors", "model.json", "model.onnx", "weights.bin",
    ]  # fmt: skip
    loaded = load(tmp_path / "saved")
    assert isinstance(loaded, OnnxModel)
    assert torch.equal(loaded.predict(loaded.example)["y"], 3 * X)


def test_an_onnx_model_takes_what_it_needs_of_the_inputs_and_names_what_is_missing(tmp_path: Path) -> None:
    model = external(tmp_path / "graph.onnx")
    strided = torch.rand(6, 4).T
    assert torch.equal(model.predict({"x": strided, "mask": X})["y"], 3 * strided)
    with pytest.raises(ConfigError, match=r"graph\.onnx: inputs \['x'\] are missing; expected \['x'\]"):
        model.predict({"input": X})
