"""The program of torch.export that computes what an ONNX file does, in the same integers."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import onnxruntime
import torch

from stages.benchmark.runners.edge.imported.network import Backend, Network
from stages.benchmark.runners.edge.imported.operators import OPERATORS
from stages.benchmark.runners.loaded import Spec


def program_of(spec: Spec, backend: Backend) -> Any:
    """The program `source` of the spec, or what torch.export makes of an ONNX file for inputs of its `shapes`, by name.

    Ends the process where the file has operators that are not known here, with their names.
    """
    if "shapes" not in spec:
        return torch.export.load(spec["source"])
    graph = folded(Path(spec["source"]), spec["shapes"])
    network = Network(graph, spec["input_names"], backend).eval()
    example = tuple(_example(graph, name, spec["shapes"][name]) for name in spec["input_names"])
    with torch.no_grad():
        network(*example)  # it then has all its constants as buffers
        return torch.export.export(network, example)


def folded(path: Path, shapes: dict[str, list[int]]) -> onnx.GraphProto:
    """The graph for inputs of these shapes: what is constant, shapes too, is computed by ONNX Runtime."""
    proto = onnx.load(path)
    for value in proto.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "fixed.onnx", Path(folder) / "folded.onnx"
        onnx.save(proto, source, save_as_external_data=True, location="fixed.data")
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.data")
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(target).graph
    if unknown := sorted({node.op_type for node in graph.node} - OPERATORS.keys()):
        sys.exit(f"the file's operators {', '.join(unknown)} have no form here. Leave this runtime out")
    return graph


def _example(graph: onnx.GraphProto, name: str, shape: list[int]) -> torch.Tensor:
    (kind,) = (value.type.tensor_type.elem_type for value in graph.input if value.name == name)
    dtype = torch.from_numpy(onnx.numpy_helper.to_array(onnx.helper.make_tensor("", kind, [0], []))).dtype
    return torch.zeros(shape, dtype=dtype) if dtype != torch.bool else torch.ones(shape, dtype=dtype)
