"""ONNX files as they come from outside: good ones, and what can be done to them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.graphs import graph, node


def simple(path: Path, *parts: Any, **rest: Any) -> Path:
    """Write the graph of these parts."""
    path.write_bytes(graph(*parts, **rest).SerializeToString())
    return path


def classifier(
    path: Path,
    names: tuple[str, str] = ("input", "output"),
    shape: list[int | str] | None = None,
    kind: int = TensorProto.FLOAT,
    seed: int = 0,
) -> Path:
    """(N, 1, 8, 8) images of the tiny task -> (N, 4) logits: the mean of each quadrant, and a little noise."""
    kinds = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.DOUBLE: np.float64}
    noise = np.random.default_rng(seed).normal(size=(64, 4)) * 0.1
    rows, columns = np.divmod(np.arange(64), 8)
    weight = (2 * (rows // 4) + columns // 4 == np.arange(4)[:, None]).T + noise
    ends = {names[0]: (kind, shape or ["batch", 1, 8, 8])}, {names[1]: (kind, ["batch", 4])}
    nodes = [node("Flatten", [names[0]], ["flat"]), node("Gemm", ["flat", "weight", "bias"], [names[1]])]
    weights = [
        numpy_helper.from_array(value.astype(kinds.get(kind, np.float32)), key)
        for key, value in {"weight": weight, "bias": np.zeros(4)}.items()
    ]
    return simple(path, nodes, *ends, weights)


def bomb(path: Path) -> Path:
    """The classifier, with 4 TiB of zeros on its way."""
    model = onnx.load(classifier(path))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**40]), "size"))
    model.graph.node[1].output[0] = "before"
    zero = node("ConstantOfShape", ["size"], ["zeros"]), node("ReduceMax", ["zeros"], ["zero"], keepdims=0)
    model.graph.node.extend([*zero, node("Add", ["before", "zero"], ["output"])])
    path.write_bytes(model.SerializeToString())
    return path


def with_data(path: Path, location: str = "net.data") -> Path:
    """The classifier with its weights in a file beside it."""
    onnx.save(onnx.load(classifier(path)), path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def relocated(path: Path, **entries: str) -> Path:
    """The same with other entries of the weight's external data; an empty one is taken out."""
    model = onnx.load(path, load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.name == "weight")
    found = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    tensor.external_data.extend(onnx.StringStringEntryProto(key=k, value=v) for k, v in found.items() if v)
    path.write_bytes(model.SerializeToString())
    return path
