"""PyTorch on a GPU: a saved TorchModel's folder. An inference begins and ends with values in the host's memory."""

import os
from typing import Any

import torch

from pipeline.model import call
from stages.benchmark.runners.loaded import Arrays, Loaded, Spec, Step
from stages.benchmark.runners.torch import opened

DEVICE = "cuda"
WARM = 3  # runs before a capture, as torch's notes on CUDA graphs have it


def load(spec: Spec) -> Loaded:
    """The model as runners.torch loads it; `graphs` of the spec replays a CUDA graph, `compiled` compiles it."""
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # fp32 is that of the reference
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = spec["cache"]
    module, vocabulary = opened(spec)
    module.to(DEVICE)
    run: Any = torch.compile(module, dynamic=False) if spec["compiled"] else module

    def prepare(arrays: Arrays) -> Step:
        inputs = {name: torch.from_numpy(value) for name, value in arrays.items()}
        if vocabulary:
            inputs = vocabulary.translate(inputs)
        return Captured(run, inputs) if spec["graphs"] else lambda: _fetched(call(run, _sent(inputs)))

    description = {
        "version": torch.__version__,
        "execution_provider": torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "precision": "f32",
    }
    return Loaded(prepare, lambda raw: {name: value.numpy() for name, value in raw.items()}, description)


class Captured:
    """An inference that copies its inputs to where a graph reads them, and replays it; the first captures it.

    Args:
        module: on the device.
        inputs: on the host, of one shape for ever.
    """

    def __init__(self, module: Any, inputs: dict[str, Any]) -> None:
        self.module, self.inputs = module, inputs
        self.graph: Any = None

    def __call__(self) -> dict[str, Any]:
        """The outputs, on the host."""
        if self.graph is None:
            self._capture()
        for name, value in self.inputs.items():
            self.held[name].copy_(value)
        self.graph.replay()
        return _fetched(self.outputs)

    def _capture(self) -> None:
        self.held = _sent(self.inputs)
        aside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                call(self.module, self.held)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = call(self.module, self.held)


def _sent(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(DEVICE) for name, value in inputs.items()}


def _fetched(outputs: dict[str, Any]) -> dict[str, Any]:
    """On the host, when all that was asked of the device is done."""
    results = {name: value.detach().cpu() for name, value in outputs.items()}
    torch.cuda.synchronize()
    return results
