"""ONNX Runtime on a GPU."""

from pathlib import Path
from typing import ClassVar

import onnxruntime
from pydantic import JsonValue

from pipeline.context import Context
from pipeline.model import Model
from stages.benchmark.answers.distances import rounds_values
from stages.benchmark.gpu import no_gpu
from stages.benchmark.runtime import Runtime


class CudaOnnxRuntime(Runtime):
    """The deployed ONNX file in fp32 on a GPU of NVIDIA's, with the copies of its inputs and outputs.

    Choose it for servers with one. Nodes that have no kernel there run on the CPU.
    """

    package: ClassVar[str] = "onnxruntime"
    command: ClassVar[str] = "pip install onnxruntime-gpu"
    runner: ClassVar[str] = "onnxruntime"
    providers: ClassVar[tuple[str, ...]] = ("CUDAExecutionProvider", "CPUExecutionProvider")

    def absent(self) -> str | None:
        """That there is no GPU."""
        return no_gpu()

    def missing(self) -> str | None:
        """That this build of ONNX Runtime has not the provider."""
        if self.providers[0] in onnxruntime.get_available_providers():
            return super().missing()
        return f"onnxruntime {onnxruntime.__version__} is built without {self.providers[0]}: {self.command}"

    def convert(self, model: Model, ctx: Context, folder: Path, batch: int) -> dict[str, JsonValue]:
        """The ONNX file, and where its nodes run, in the order of choice."""
        place = super().convert(model, ctx, folder, batch)
        options = self._options(folder, rounds=rounds_values(ctx.deployed(model).path))
        providers: list[JsonValue] = [[name, {**options.get(name, {})}] for name in self.providers]
        return {**place, "providers": providers}

    def _options(self, folder: Path, *, rounds: bool) -> dict[str, dict[str, str]]:
        """Those of providers, for a file that rounds its values to integers or not."""
        return {"CUDAExecutionProvider": {"use_tf32": "0"}}
