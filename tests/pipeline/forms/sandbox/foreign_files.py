"""ONNX files as they come from outside: good ones, and what can be done to them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = [helper.make_opsetid("", 20)]
Dims = list[int | str]


def saved(graph: onnx.GraphProto, path: Path, **rest: Any) -> Path:
    """Write a graph as a model."""
    made = helper.make_model(graph, **{"opset_imports": OPSET, "ir_version": 10, **rest})
    path.write_bytes(made.SerializeToString())
    return path


def classifier(
    path: Path,
    names: tuple[str, str] = ("input", "output"),
    shape: Dims | None = None,
    kind: int = TensorProto.FLOAT,
    seed: int = 0,
) -> Path:
    """(N, 1, 8, 8) images of the tiny task -> (N, 4) logits: the mean of each quadrant, and a little noise."""
    kinds = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.DOUBLE: np.float64}
    noise = np.random.default_rng(seed).normal(size=(64, 4)) * 0.1
    rows, columns = np.divmod(np.arange(64), 8)
    weight = (2 * (rows // 4) + columns // 4 == np.arange(4)[:, None]).T + noise
    given = helper.make_tensor_value_info(names[0], kind, shape or ["batch", 1, 8, 8])
    made = helper.make_tensor_value_info(names[1], kind, ["batch", 4])
    nodes = [
        helper.make_node("Flatten", [names[0]], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], [names[1]]),
    ]
    tensors = {"weight": weight, "bias": np.zeros(4)}
    weights = [
        numpy_helper.from_array(value.astype(kinds.get(kind, np.float32)), key) for key, value in tensors.items()
    ]
    return saved(helper.make_graph(nodes, "g", [given], [made], weights), path)


def bomb(path: Path) -> Path:
    """The classifier, with 4 TiB of zeros on its way."""
    model = onnx.load(classifier(path))
    size = numpy_helper.from_array(np.array([2**40]), "size")
    model.graph.initializer.append(size)
    model.graph.node[1].output[0] = "before"
    model.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
            helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
            helper.make_node("Add", ["before", "zero"], ["output"]),
        ]
    )
    path.write_bytes(model.SerializeToString())
    return path


def with_data(path: Path, location: str = "net.data") -> Path:
    """The classifier with its weights in a file beside it."""
    model = onnx.load(classifier(path))
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
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


def simple(path: Path, nodes: list[onnx.NodeProto], inputs: Any, outputs: Any, weights: Any = (), **rest: Any) -> Path:
    """A graph of nodes; inputs and outputs are {name: (type, dims)}."""
    ends = [[helper.make_tensor_value_info(n, *how) for n, how in side.items()] for side in (inputs, outputs)]
    return saved(helper.make_graph(nodes, "g", *ends, list(weights)), path, **rest)
