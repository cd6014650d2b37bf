"""ExecuTorch on the CPU: a .pte file whose operators run in XNNPACK, made of a program of torch.export."""

from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from executorch.extension.pybindings import portable_lib
from executorch.runtime import Runtime

from stages.benchmark.runners.loaded import Arrays, Loaded, Spec, Step


def convert(spec: Spec) -> None:
    """Write `model` of the spec from its `source`, what torch.export.save wrote."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.load(spec["source"])
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    Path(spec["model"]).write_bytes(lowered.buffer)


def load(spec: Spec) -> Loaded:
    """The file `model` of the spec, whose inputs and outputs it names in their order."""
    portable_lib._unsafe_reset_threadpool(spec["threads"])  # the one way there is; nothing runs yet
    torch.set_num_threads(spec["threads"])
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
        "precision": "f32",
    }
    return Loaded(prepare, answers, description)
