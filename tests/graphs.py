"""Small ONNX graphs, node by node."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
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


def products(path: Path, layers: int, width: int = 32) -> OnnxModel:
    """MatMul after MatMul: (batch, width) -> (batch, width)."""
    names = ["input", *(f"h{i}" for i in range(layers - 1)), "output"]
    nodes = [node("MatMul", [a, f"w_{b}"], [b]) for a, b in pairwise(names)]
    weights = {f"w_{name}": np.eye(width) for name in names[1:]}
    onnx.save(graph(nodes, {"input": ["batch", width]}, {"output": ["batch", width]}, weights), path)
    return OnnxModel(path, {"input": torch.rand(3, width)})
