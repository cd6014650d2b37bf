"""ExecuTorch on the CPU: a .pte file whose operators run in XNNPACK, made of a program of torch.export."""

import importlib
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Runtime

from stages.benchmark.runners.loaded import Arrays, Loaded, Spec, Step

HEAVY = {"convolution", "linear", "addmm", "mm", "bmm"}
"""Operators of torch whose precision is that of the model."""


def convert(spec: Spec) -> None:
    """Write `model` of the spec from its `source`, an ONNX file or what torch.export.save wrote.

    What it computes in is written beside it.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from stages.benchmark.runners.edge.imported.network import Backend
    from stages.benchmark.runners.edge.imported.program import program_of

    program = program_of(spec, Backend(holds_integers=True, ranges=True))
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path = Path(spec["model"])
    path.with_suffix(".txt").write_text(_precision(edge.exported_program().graph_module))
    path.write_bytes(edge.to_executorch().buffer)


def load(spec: Spec) -> Loaded:
    """The file `model` of the spec, whose inputs and outputs it names in their order."""
    portable_lib._unsafe_reset_threadpool(spec["threads"])  # the one way there is; nothing runs yet
    torch.set_num_threads(spec["threads"])
    if "i8" in spec["precision"]:  # what XNNPACK did not take of a quantized model
        importlib.import_module("executorch.kernels.quantized")
    method = Runtime.get().load_program(spec["model"]).load_method("forward")

    def prepare(arrays: Arrays) -> Step:
        feed = [torch.from_numpy(arrays[name]) for name in spec["input_names"]]
        return lambda: method.execute(feed)

    def answers(raw: Any) -> Arrays:
        return {name: value.numpy().copy() for name, value in zip(spec["output_names"], raw, strict=True)}

    description = {
        "version": metadata.version("executorch"),
        "execution_provider": "XNNPACK",
        "threads": portable_lib._threadpool_get_thread_count(),
        "precision": spec["precision"],
    }
    return Loaded(prepare, answers, description)


def _precision(module: Any) -> str:
    """What the heavy operators compute in: f32, or f32 and i8. Those that XNNPACK did not take compute in floats."""
    kinds = {"f32" for _ in _heavy(module)}
    for _, part in module.named_children():
        for node in _heavy(part.original_module.graph_module):
            read = [value.target.__name__ for value in node.all_input_nodes if callable(value.target)]
            kinds.add("i8" if any("dequantize" in name for name in read) else "f32")
    return ", ".join(sorted(kinds or {"f32"}))


def _heavy(module: Any) -> list[Any]:
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    return [node for node in calls if HEAVY.intersection(node.target.__name__.split("."))]
