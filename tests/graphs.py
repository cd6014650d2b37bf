"""Small ONNX graphs, node by node."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline.model import OnnxModel

node = helper.make_node


def port(name: str, dims: Any, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)


def tensors(**values: Any) -> list[TensorProto]:
    """An initializer for each array; those of double precision become floats, as weights are."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    return [
        numpy_helper.from_array(array.astype(np.float32) if array.dtype == np.float64 else array, name)
        for name, array in arrays.items()
    ]


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    weights: Mapping[str, Any] | Sequence[TensorProto] = (),
    **rest: Any,
) -> onnx.ModelProto:
    """A model of nodes; inputs and outputs are {name: dims} of floats or {name: (type, dims)}."""
    ends = [
        [port(name, how[1], how[0]) if isinstance(how, tuple) else port(name, how) for name, how in side.items()]
        for side in (inputs, outputs)
    ]
    if isinstance(weights, Mapping):
        weights = tensors(**weights)
    opset = {"opset_imports": [helper.make_opsetid("", 20)], "ir_version": 10}
    return helper.make_model(helper.make_graph(nodes, "g", *ends, list(weights)), **{**opset, **rest})


def mapping(nodes: Sequence[onnx.NodeProto], weights: Mapping[str, Any], shape: list[int | str]) -> onnx.ModelProto:
    """A model of nodes from "input" to an "output" of the same shape."""
    return graph(nodes, {"input": shape}, {"output": shape}, weights)


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The first output of a checked model for its one input."""
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {proto.graph.input[0].name: x})[0])


def products(path: Path, layers: int, width: int = 32) -> OnnxModel:
    """MatMul after MatMul: (batch, width) -> (batch, width)."""
    names = ["input", *(f"h{i}" for i in range(layers - 1)), "output"]
    nodes = [node("MatMul", [a, f"w_{b}"], [b]) for a, b in pairwise(names)]
    weights = {f"w_{name}": np.eye(width) for name in names[1:]}
    onnx.save(graph(nodes, {"input": ["batch", width]}, {"output": ["batch", width]}, weights), path)
    return OnnxModel(path, {"input": torch.rand(3, width)})
